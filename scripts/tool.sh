#!/usr/bin/env bash
# Runs a Python program that is not a dependency of this project, from a temporary virtual environment:
# scripts/tool.sh PACKAGE==VERSION PROGRAM OPTIONS…
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

"${PYTHON:-python3}" -m venv "$place"
"$place/bin/pip" install --quiet --disable-pip-version-check "$1"
"$place/bin/$2" "${@:3}"
