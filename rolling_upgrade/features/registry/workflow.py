"""Log hosts in to a registry and out; the password comes from the env file, standard input or the terminal.

Podman and Skopeo both read the login file of the deploy user. The password travels in the script and on the standard
input of `podman login`, never in an argument or a log. Source: containers-auth.json(5): without
XDG_RUNTIME_DIR/containers/auth.json, which a reboot deletes, both read ~/.config/containers/auth.json.
"""

from __future__ import annotations

import base64
import getpass
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rolling_upgrade import config
from rolling_upgrade.config import validators
from rolling_upgrade.console.output import print_lines
from rolling_upgrade.engine import masking
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.masking import safe
from rolling_upgrade.engine.model import Environment, Login
from rolling_upgrade.engine.shell import Script, direct, quote, shell_join
from rolling_upgrade.errors import PROGRAM, ConfigError, ExitCode, PreflightError, usage_error
from rolling_upgrade.ssh.fleet import Fleet, opened

_FILE = '"$HOME/.config/containers/auth.json"'
#: Exit status of the login script when the registry refuses the login.
REFUSED_STATUS = 65
LOGIN_SECONDS = 60


def login(
    env: str | None, *, root: Path, hosts: tuple[str, ...] = (), registry: str = "", username: str = ""
) -> ExitCode:
    """Log every host in. Raises PreflightError that names each host with a refused login."""
    loaded = config.load(env, root=root, hosts=hosts)
    chosen = _login(loaded, registry, username)
    with opened(loaded) as fleet:
        log_in(fleet, {target.name: chosen for target in loaded.targets}, always_ask=True)
    lines = [f"{target.name}: logged in to {chosen.registry} as {chosen.username}" for target in loaded.targets]
    print_lines(lines, loaded.secrets)
    return ExitCode.DONE


def logout(env: str | None, *, root: Path, hosts: tuple[str, ...] = (), registry: str = "") -> ExitCode:
    """Delete every host's login. FAILED when a host is unreachable."""
    loaded = config.load(env, root=root, hosts=hosts)
    registry = registry or _configured(loaded).registry
    if not registry:
        raise ConfigError(
            "the registry is missing; nothing was contacted.", next_step="--registry NAME, or REGISTRY in the env file"
        )
    _check("--registry", registry, validators.REGISTRY)

    def log_out(host: Host) -> str:
        answer = host.run(logout_script(registry), timeout_seconds=LOGIN_SECONDS)
        return "" if answer.ok else answer.output_tail

    with opened(loaded) as fleet:
        problems = fleet.on_each(log_out)
    lines = [f"{host}: {problem or f'no login to {registry}'}" for host, problem in problems.items()]
    print_lines(lines, loaded.secrets)
    return ExitCode.FAILED if any(problems.values()) else ExitCode.DONE


def log_in(fleet: Fleet, logins: Mapping[str, Login], *, always_ask: bool = False) -> None:
    """Log each host in with its own login. Raises PreflightError that names each refusal."""

    def attempt(host: Host) -> str:
        login = logins[host.name]
        answer = host.run(login_script(login, always_ask=always_ask), timeout_seconds=LOGIN_SECONDS)
        return "" if answer.ok else f"{host.name}: {login.registry} refused {login.username}: {answer.output_tail}"

    hosts = [host for host in fleet.hosts if host.name in logins]
    refused = [refusal for refusal in fleet.on_all(attempt, hosts=hosts).values() if refusal]
    if refused:
        secrets = (*fleet.environment.secrets, *(login.password for login in logins.values()))
        listed = safe("\n  ".join(refused), secrets)
        raise PreflightError(
            f"a registry login was refused; nothing was touched.\n  {listed}",
            next_step="check the registry, the name and the password (REGISTRY, REGISTRY_USERNAME, REGISTRY_PASSWORD)",
        )


def _configured(environment: Environment) -> Login:
    logins = [target.application.login for target in environment.targets if target.application.login]
    return logins[0] if logins else Login("", "", "")


def _named(environment: Environment, registry_name: str, username: str) -> Login:
    """Return the chosen registry and username. Raises ConfigError for a missing or invalid one."""
    known = _configured(environment)
    chosen = replace(known, registry=registry_name or known.registry, username=username or known.username)
    if not chosen.registry or not chosen.username:
        raise ConfigError(
            "a login needs a registry and a username.",
            next_step="--registry NAME --username NAME, or REGISTRY, REGISTRY_USERNAME and REGISTRY_PASSWORD "
            "in the env file",
        )
    _check("--registry", chosen.registry, validators.REGISTRY)
    _check("--username", chosen.username, validators.TEXT)
    return chosen


def _check(option: str, value: str, validate: validators.Validator[str]) -> None:
    """Raise ConfigError for an invalid value."""
    try:
        validate(value)
    except ValueError as error:
        raise usage_error((option, repr(value), str(error))) from error


def _login(environment: Environment, registry_name: str, username: str) -> Login:
    """Return the chosen login with its password. Raises ConfigError for an incomplete one."""
    known, chosen = _configured(environment), _named(environment, registry_name, username)
    if (chosen.registry, chosen.username) == (known.registry, known.username) and known.password:
        return chosen
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password of {chosen.username} at {chosen.registry}: ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password or not password.isprintable():
        raise ConfigError(
            "the password is missing.", next_step=f"on standard input, one line: {PROGRAM} registry.login … < FILE"
        )
    masking.remember([password])
    return replace(chosen, password=password)


def login_script(login: Login, *, always_ask: bool) -> Script:
    """Log the deploy user in; print `kept` for an existing login, without contacting the registry.

    With `always_ask`, always contact the registry. If it refuses, exit with REFUSED_STATUS and keep the file.
    """
    stored = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
    command = shell_join("podman", "login", "--username", login.username, "--password-stdin", login.registry)
    known = f"printf '%s\\n' {quote(stored)} | grep -qsF -f - {_FILE} && grep -qsF {quote(login.registry)} {_FILE}"
    text = f"""\
if {"false" if always_ask else known}; then echo kept; exit 0; fi
mkdir -p "$HOME/.config/containers"
if ! said=$(printf %s {quote(login.password)} | timeout {LOGIN_SECONDS - 10} {command} --authfile {_FILE} 2>&1); then
  printf '%s\\n' "$said" | tail -n 1
  exit {REFUSED_STATUS}
fi
chmod 0600 {_FILE}"""
    return Script(direct(text).text, (login.password, stored))


def logout_script(registry: str) -> Script:
    """Delete the login to a registry, if there is one."""
    command = shell_join("podman", "logout", registry)
    return direct(f"if grep -qsF {quote(registry)} {_FILE}; then {command} --authfile {_FILE} >/dev/null; fi")
