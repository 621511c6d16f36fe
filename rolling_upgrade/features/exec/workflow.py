"""Run a command in the active containers of the hosts or in a new container, or open a shell in one."""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

from rolling_upgrade import config
from rolling_upgrade.console.output import HostOutput, is_terminal
from rolling_upgrade.engine import history
from rolling_upgrade.engine.host import Cancelled
from rolling_upgrade.engine.model import Application, Environment, Target
from rolling_upgrade.engine.parallel import run_streams
from rolling_upgrade.engine.shell import Script, direct
from rolling_upgrade.engine.untrusted import Malformed
from rolling_upgrade.errors import (
    PROGRAM,
    ConfigError,
    ConnectionDropped,
    ExitCode,
    Interrupted,
    PreflightError,
    RollingError,
    usage_error,
)
from rolling_upgrade.features.exec import shell as scripts
from rolling_upgrade.features.exec.input import Receiver, has_input, read
from rolling_upgrade.ssh.fabric_host import FabricHost
from rolling_upgrade.ssh.fleet import Fleet, opened

#: The time limit of a script that reads a file.
QUERY_SECONDS = 60.0


def execute(env: str | None, argv: Sequence[str], *, root: Path, hosts: tuple[str, ...] = (), service: str = "") -> int:
    """Run a command in the active container of each host.

    Returns:
        The status of the command on a single host; on several, DONE, or FAILED when it failed on one.
    """
    if not argv:
        raise usage_error(("--", "no command", f"the command after `--`: {PROGRAM} exec --env ENV -- CMD ARGS"))
    environment = config.load(env, root=root, hosts=hosts)
    environment, service = _placed(environment, hosts, service)
    with_input = has_input()

    def script(target: Target) -> Script:
        return scripts.execute(target.application, service, argv, with_input=with_input)

    with opened(environment) as fleet:
        return run_scripts(
            fleet, {host: script(target) for host, target in fleet.targets.items()}, with_input=with_input
        )


def run_scripts(fleet: Fleet, scripts: Mapping[str, Script], *, with_input: bool) -> int:
    """Run the script of each host and show its output; `with_input` passes standard input on to scripts that read it.

    Returns:
        The status of a single host; of several, DONE, or FAILED when a script failed on one.
    """
    hosts = [host for host in fleet.hosts if host.name in scripts]
    names, secrets = [host.name for host in hosts], fleet.environment.secrets
    out = HostOutput(sys.stdout, hosts=names, secrets=secrets)
    err = HostOutput(sys.stderr, hosts=names, secrets=secrets)
    ended = Event()
    receivers = [Receiver(partial(out.feed, host.name)) if with_input else None for host in hosts]
    commands = [
        _command(host, scripts[host.name], out, err, ended, receiver)
        for host, receiver in zip(hosts, receivers, strict=True)
    ]
    if with_input:
        read(0, [receiver for receiver in receivers if receiver is not None])
    results = run_streams(commands, ended, lambda: out.closed)
    if len(results) == 1:
        return _single(results[0])
    if any(isinstance(result, Cancelled) for result in results):
        raise Interrupted("interrupted; the command was ended on every host where it was still running.")
    for name, result in zip(names, results, strict=True):
        if result != 0:
            reason = f"exited with {result}" if isinstance(result, int) else str(result)
            err.feed(name, f"{reason}\n".encode())
    return ExitCode.DONE if not any(results) else ExitCode.FAILED


def _single(result: int | Exception) -> int:
    if isinstance(result, Cancelled):
        raise Interrupted("interrupted; the command was ended.")
    if isinstance(result, Exception):
        raise result
    return result


def _command(
    host: FabricHost, script: Script, out: HostOutput, err: HostOutput, ended: Event, receiver: Receiver | None
) -> Callable[[], int | Exception]:
    """Return the function that runs the command on one host and returns its status or its error."""

    def run() -> int | Exception:
        on_output, on_errors = partial(out.feed, host.name), partial(err.feed, host.name)
        try:
            if receiver is None:
                return host.stream(script, on_output, on_errors, cancelled=ended)
            # A command may work for hours before it reads its input.
            return host.stream(
                *(script, receiver.received, on_errors),
                cancelled=ended,
                on_open=receiver.opened,
                send_seconds=math.inf,
            )
        except (RollingError, Cancelled) as error:
            return error
        finally:
            if receiver is not None:
                receiver.end()
            out.end(host.name)
            err.end(host.name)

    return run


def run(
    env: str | None,
    argv: Sequence[str],
    *,
    root: Path,
    hosts: tuple[str, ...] = (),
    service: str = "",
    entrypoint: str | None = None,
) -> int:
    """Run a command in a new container of the current release on one host, and return its status.

    The container is interactive on a terminal, and removed at the end.
    """
    if not argv:
        raise usage_error(("--", "no command", f"the command after `--`: {PROGRAM} run --env ENV -- CMD ARGS"))
    program = None if entrypoint is None else _words(entrypoint)
    environment = config.load(env, root=root, hosts=hosts)
    target = _target(environment, service, hosts)
    environment = replace(environment, targets=(target,))
    with opened(environment) as fleet:
        (host,) = fleet.hosts
        release, app = _current_release(host, target.application)
        name = service or target.application.services[0].name
        chosen = next((found for found in app.services if found.name == name), None)
        if chosen is None:
            raise PreflightError(
                f"{host.name}: the current release has no service {name}; nothing was started.",
                next_step=f"{PROGRAM} deploy --env {environment.name} deploys it",
            )
        if _is_on_terminal():
            term = os.environ.get("TERM", "dumb")
            command = scripts.run_on_terminal(app, chosen, argv, release=release, entrypoint=program, term=term)
            return _interactive(host, command)
        with_input = has_input()
        script = scripts.run_once(app, chosen, argv, release=release, entrypoint=program, with_input=with_input)
        return run_scripts(fleet, {host.name: script}, with_input=with_input)


def _words(entrypoint: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(entrypoint))
    except ValueError:
        raise usage_error(("--entrypoint", repr(entrypoint), "a program with its arguments, or '' for none")) from None


def _target(environment: Environment, service: str, hosts: Sequence[str]) -> Target:
    """Return the first host that has the service. Raises ConfigError without one, or if several hosts were named."""
    names = [target.name for target in environment.targets]
    if hosts and len(names) != 1:
        raise usage_error(("--host", f"{len(names)} hosts", f"one of: {', '.join(names)}"))
    known: dict[str, Target] = {}
    for target in environment.targets:
        for found in target.application.services:
            known.setdefault(found.name, target)
    if service and service not in known:
        raise usage_error(("--service", repr(service), f"one of: {', '.join(known)}"))
    if not known:
        raise usage_error(("--host", ", ".join(names), "a host with a service"))
    return known[service or next(iter(known))]


def _current_release(host: FabricHost, app: Application) -> tuple[str, Application]:
    """Return the id of the release that a host runs, and the application as that release defined it."""
    deploy = f"{PROGRAM} deploy --env {app.environment} deploys one"
    releases = host.run(direct(history.read_newest(app.home)), timeout_seconds=QUERY_SECONDS)
    release = history.live_release(history.parse(releases.output))
    if not release:
        raise PreflightError(f"{host.name}: no release was deployed yet; nothing was started.", next_step=deploy)
    answer = host.run(direct(history.read_definition(app.home, release)), timeout_seconds=QUERY_SECONDS)
    try:
        return release, history.parse_definition(answer.output, app.home)
    except Malformed as error:
        raise PreflightError(
            f"{host.name}: the definition of release {release} cannot be read: {error}", next_step=deploy
        ) from error


def _is_on_terminal() -> bool:
    return is_terminal(sys.stdin) and is_terminal(sys.stdout)


def _interactive(host: FabricHost, command: str) -> int:
    try:
        return host.run_interactive(command, sys.stdin.fileno(), sys.stdout.fileno())
    except ConnectionDropped as error:
        raise ConnectionDropped(error.message, next_step="run the same command again") from error


def shell(env: str | None, *, root: Path, hosts: tuple[str, ...] = (), service: str = "") -> int:
    """Open a shell in the active container of one host, and return the status of the shell."""
    environment = config.load(env, root=root, hosts=hosts)
    environment, service = _placed(environment, hosts, service)
    names = [target.name for target in environment.targets]
    if len(names) != 1:
        raise usage_error(("--host", f"{len(names)} hosts", f"one of: {', '.join(names)}"))
    if not _is_on_terminal():
        raise ConfigError(
            "a shell requires a terminal, but standard input or output is not one.",
            next_step=f"{PROGRAM} exec --env {environment.name} --host {names[0]} -- CMD runs one command",
        )
    with opened(environment) as fleet:
        host = fleet.hosts[0]
        return _interactive(host, scripts.shell(fleet.targets[host.name].application, service))


def _placed(environment: Environment, hosts: Sequence[str], name: str) -> tuple[Environment, str]:
    """Return the hosts that run a service, and its name; by default the first service of the first host.

    Without `hosts`, these are all hosts that run it. Raises ConfigError for a service that does not run on a host that
    the operator named.
    """
    known = [service.name for service in environment.services]
    everywhere = [service for service in known if len(environment.running(service).targets) == len(environment.targets)]
    possible = everywhere if hosts else known
    if name and name not in possible:
        raise usage_error(("--service", repr(name), f"one of: {', '.join(possible) or 'no service runs there'}"))
    service = name or next(iter(everywhere or possible), "")
    if not service:
        names = ", ".join(target.name for target in environment.targets)
        raise usage_error(("--hosts", names, "hosts that run the same service"))
    return environment.running(service), service
