"""Log the hosts in at a registry and out again; a password comes from the env file, standard input or the terminal."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fabfile import config
from fabfile.commands import registry
from fabfile.config import forms
from fabfile.errors import ConfigError, ExitCode, HostUnreachable, Mistake, PreflightError
from fabfile.model import Environment, Login
from fabfile.remote import observe
from fabfile.remote.host import Host
from fabfile.report import safe
from fabfile.report.output import Output
from fabfile.workflows.fleet import Fleet, opened


def login(
    environment: str | None, *, root: Path, hosts: tuple[str, ...], registry_name: str, username: str
) -> ExitCode:
    """Log every host in. Raises PreflightError that names each host whose login was refused."""
    wanted = config.load(environment, root=root, hosts=hosts)
    asked = _asked(wanted, registry_name, username)
    with opened(wanted) as fleet:
        log_in(fleet, {target.name: asked for target in wanted.targets}, ask_again=True)
    _show(wanted, [f"{target.name}: logged in at {asked.registry} as {asked.username}" for target in wanted.targets])
    return ExitCode.DONE


def logout(environment: str | None, *, root: Path, hosts: tuple[str, ...], registry_name: str) -> ExitCode:
    """Forget every host's login. FAILED when a host could not be asked."""
    wanted = config.load(environment, root=root, hosts=hosts)
    name = registry_name or _of_env_file(wanted).registry
    if not name:
        raise ConfigError("no registry is named.", next_step="--registry NAME, or REGISTRY in the env file")
    _check("--registry", name, forms.REGISTRY)

    def leave(host: Host) -> str:
        answer = host.run(registry.logout(name), timeout_seconds=registry.LOGIN_SECONDS)
        return "" if answer.ok else answer.last_words

    with opened(wanted) as fleet:
        found = observe.on_each(fleet.hosts, wanted.rollout.parallel, leave)
    _show(wanted, [f"{host}: {problem or f'no login at {name}'}" for host, problem in found.items()])
    return ExitCode.FAILED if any(found.values()) else ExitCode.DONE


def log_in(fleet: Fleet, logins: Mapping[str, Login], *, ask_again: bool = False) -> None:
    """Log hosts in, each with its own login. Raises PreflightError that names each refusal."""

    def one(host: Host) -> str:
        login = logins[host.name]
        answer = host.run(registry.login(login, ask_again=ask_again), timeout_seconds=registry.LOGIN_SECONDS)
        return "" if answer.ok else f"{host.name}: {login.registry} refused {login.username}: {answer.last_words}"

    hosts = [host for host in fleet.hosts if host.name in logins]
    found = observe.on_each(hosts, fleet.environment.rollout.parallel, one)
    lost = [str(said) for said in found.values() if isinstance(said, HostUnreachable)]
    if lost:
        raise HostUnreachable("\n".join(lost))
    refused = [str(said) for said in found.values() if said]
    if refused:
        secrets = (*fleet.environment.secrets, *(login.password for login in logins.values()))
        listed = safe("\n  ".join(refused), secrets)
        raise PreflightError(
            f"a registry login was refused; nothing was touched.\n  {listed}",
            next_step="check the registry, the name and the password (REGISTRY, REGISTRY_USERNAME, REGISTRY_PASSWORD)",
        )


def _show(environment: Environment, lines: list[str]) -> None:
    Output(sys.stdout, environment.secrets).show(lines)


def _of_env_file(environment: Environment) -> Login:
    found = [target.application.login for target in environment.targets if target.application.login]
    return found[0] if found else Login("", "", "")


def _named(environment: Environment, registry_name: str, username: str) -> Login:
    """The login that is meant, by its names. Raises ConfigError when it is not whole, or a name could be an option."""
    known = _of_env_file(environment)
    asked = replace(known, registry=registry_name or known.registry, username=username or known.username)
    if not asked.registry or not asked.username:
        raise ConfigError(
            "a login needs a registry and a name.",
            next_step="--registry NAME --username NAME, or REGISTRY, REGISTRY_USERNAME and REGISTRY_PASSWORD "
            "in the env file",
        )
    _check("--registry", asked.registry, forms.REGISTRY)
    _check("--username", asked.username, forms.TEXT)
    return asked


def _check(option: str, name: str, form: forms.Form[str]) -> None:
    """Refuse a name without its form. Raises ConfigError."""
    try:
        form(name)
    except ValueError as error:
        mistake = Mistake("command line", option, repr(name), str(error))
        raise ConfigError("The command line has a mistake; nothing was contacted.", [mistake]) from error


def _asked(environment: Environment, registry_name: str, username: str) -> Login:
    """The login that is meant, with its password. Raises ConfigError when it is not whole."""
    known, asked = _of_env_file(environment), _named(environment, registry_name, username)
    if (asked.registry, asked.username) == (known.registry, known.username) and known.password:
        return asked
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password of {asked.username} at {asked.registry}: ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password or not password.isprintable():
        raise ConfigError(
            "no password was given.", next_step="on standard input, one line: inv registry.login … < FILE"
        )
    return replace(asked, password=password)
