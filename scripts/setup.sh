#!/usr/bin/env bash
# Prepares this machine for every make target: installs Debian packages and creates .venv from requirements.lock.
# It is idempotent and reports what it does and what it cannot do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

OLDEST="3.11"
STAMP=".venv/made-from"

say() { printf 'setup: %s\n' "$*"; }

# Prints a Python that is new enough and can create virtual environments. $PYTHON overrides the candidates.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 /usr/bin/python3 python3.13 python3.12 python3.11}; do
        if "$candidate" - "$OLDEST" 2>/dev/null <<'PROGRAM'; then
import sys
import ensurepip, venv
sys.exit(sys.version_info[:2] < tuple(map(int, sys.argv[1].split("."))))
PROGRAM
            command -v "$candidate"
            return
        fi
    done
    return 1
}

wanted_packages() {
    find_python >/dev/null || echo python3-venv
    command -v git >/dev/null || echo git
    command -v ssh >/dev/null || echo openssh-client
    command -v gpg >/dev/null || echo gnupg
    cat lab/packages.txt tests/packages.txt
}

missing_packages() {
    local installed package
    # shellcheck disable=SC2016  # the braces belong to dpkg-query
    installed=$(dpkg-query --show --showformat '${Package} ${db:Status-Status}\n' 2>/dev/null | sed -n 's/ installed$//p')
    wanted_packages | sort -u | while read -r package; do
        [ -z "$package" ] || grep -qxF -- "$package" <<<"$installed" || echo "$package"
    done
}

# Prints the command prefix for root: nothing for root, sudo with a password only on a terminal. Fails otherwise.
root_prefix() {
    if [ "$(id -u)" = 0 ]; then
        return
    elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        echo sudo
    else
        return 1
    fi
}

install_packages() {
    local missing=("$@") prefix
    if ! prefix=$(root_prefix); then
        say "cannot become root. Ask an administrator for: apt-get install --no-install-recommends ${missing[*]}"
        return 1
    fi
    say "installing Debian packages: ${missing[*]}"
    local apt=(${prefix:+"$prefix"} env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq)
    if ! "${apt[@]}" update || ! "${apt[@]}" install --yes --no-install-recommends "${missing[@]}" </dev/null >/dev/null; then
        say "apt-get failed (see its output above). Next: fix its sources, or install by hand: ${missing[*]}"
        return 1
    fi
}

prepare_debian() {
    local missing
    if ! command -v apt-get >/dev/null; then
        say "this is not Debian: the lab (make demo, make test) needs its packages: $(paste -sd " " lab/packages.txt)"
        return
    fi
    mapfile -t missing < <(missing_packages)
    if [ "${#missing[@]}" -gt 0 ] && ! install_packages "${missing[@]}" && find_python >/dev/null; then
        say "continuing without them: deploying works, the lab (make demo, make test) does not."
    fi
}

prepare_venv() {
    local python version wanted started=$SECONDS
    if ! python=$(find_python); then
        say "found no Python $OLDEST or newer that can create virtual environments."
        say "Next: install python3 and python3-venv (Debian 12 or newer), or run: make setup PYTHON=/path/to/python3"
        exit 1
    fi
    version=$("$python" -c 'import sys; print(sys.version.split()[0], sys.base_prefix)')
    # A virtual environment has absolute paths, so a moved one is recreated.
    wanted="$(sha256sum <requirements.lock) $version $PWD"
    if [ -x .venv/bin/python ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ]; then
        say "ready"
        return
    fi
    say "creating .venv with Python ${version%% *} and $(grep -c '^[a-z]' requirements.lock) packages (about half a minute)"
    rm -rf .venv
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r requirements.lock
    printf '%s\n' "$wanted" >"$STAMP"
    say "ready after $((SECONDS - started)) s"
}

prepare_debian
prepare_venv
