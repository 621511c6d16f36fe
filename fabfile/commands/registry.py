"""A host's logins at registries, in a file of the deploy user that Podman and Skopeo both read. It runs nothing.

The password travels in the script and on the standard input of `podman login`: it is no argument of any program, and in
no log. Source: containers-auth.json(5): without XDG_RUNTIME_DIR/containers/auth.json, which ends with the boot,
~/.config/containers/auth.json is read.
"""

from __future__ import annotations

import base64

from fabfile.commands.journal import direct
from fabfile.commands.shell import Script, quote, words
from fabfile.model import Login

_FILE = '"$HOME/.config/containers/auth.json"'
#: Exit status of `login` when the registry refuses it.
REFUSED_STATUS = 65
LOGIN_SECONDS = 60


def login(wanted: Login, *, ask_again: bool) -> Script:
    """Log the deploy user in; prints `kept` for a login that is there already, and is asked of no registry again.

    `ask_again` asks the registry all the same. Exits REFUSED_STATUS, the file as it was, when the registry says no.
    """
    stored = base64.b64encode(f"{wanted.username}:{wanted.password}".encode()).decode()
    ask = words("podman", "login", "--username", wanted.username, "--password-stdin", wanted.registry)
    known = f"printf '%s\\n' {quote(stored)} | grep -qsF -f - {_FILE} && grep -qsF {quote(wanted.registry)} {_FILE}"
    text = f"""\
if {"false" if ask_again else known}; then echo kept; exit 0; fi
mkdir -p "$HOME/.config/containers"
if ! said=$(printf %s {quote(wanted.password)} | timeout {LOGIN_SECONDS - 10} {ask} --authfile {_FILE} 2>&1); then
  printf '%s\\n' "$said" | tail -n 1
  exit {REFUSED_STATUS}
fi
chmod 0600 {_FILE}"""
    return Script(direct(text).text, (wanted.password, stored))


def logout(registry: str) -> Script:
    """Forget the login at a registry; none is no error."""
    leave = words("podman", "logout", registry)
    return direct(f"if grep -qsF {quote(registry)} {_FILE}; then {leave} --authfile {_FILE} >/dev/null; fi")
