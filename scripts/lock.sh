#!/usr/bin/env bash
# Creates requirements.lock from requirements.in: every version with the hashes of its files for all platforms, without
# indexes and URLs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT

echo "lock: fetching the resolver"
"${PYTHON:-python3}" -m venv "$tools"
"$tools/bin/pip" install --quiet --disable-pip-version-check 'pip-tools==7.6.2'

echo "lock: resolving"
cp requirements.lock "$tools/requirements.lock" 2>/dev/null || :
"$tools/bin/pip-compile" --quiet --generate-hashes --strip-extras --allow-unsafe --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options "$@" \
    --output-file "$tools/requirements.lock" requirements.in
{
    echo "# Made by \`make lock\` from requirements.in; edit that one."
    grep -v '^#' "$tools/requirements.lock"
} >"$tools/finished"
cp "$tools/finished" requirements.lock
echo "lock: $(grep -c '^[a-z]' requirements.lock) packages (make setup installs them)"
