#!/usr/bin/env bash
# Runs a Python program that is none of this project's dependencies, from a place of its own that goes away:
# scripts/tool.sh PACKAGE==VERSION PROGRAM WORDS…
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

"${PYTHON:-python3}" -m venv "$place"
"$place/bin/pip" install --quiet --disable-pip-version-check "$1"
"$place/bin/$2" "${@:3}"
