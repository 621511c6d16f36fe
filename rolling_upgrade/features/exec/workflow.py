"""Run a command in the active containers of the hosts, or open a shell in one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

from rolling_upgrade import config
from rolling_upgrade.console.output import HostOutput
from rolling_upgrade.engine.host import Cancelled
from rolling_upgrade.engine.model import Environment
from rolling_upgrade.engine.parallel import run_streams
from rolling_upgrade.errors import (
    PROGRAM,
    ConfigError,
    ConnectionDropped,
    ExitCode,
    Interrupted,
    RollingError,
    usage_error,
)
from rolling_upgrade.features.exec import shell as scripts
from rolling_upgrade.ssh.fabric_host import FabricHost
from rolling_upgrade.ssh.fleet import Fleet, opened


def execute(env: str | None, argv: Sequence[str], *, root: Path, hosts: tuple[str, ...] = (), service: str = "") -> int:
    """Run a command in the active container of each host.

    Returns:
        The status of the command on a single host; on several, DONE, or FAILED when it failed on one.
    """
    if not argv:
        raise usage_error(("--", "no command", f"the command after `--`: {PROGRAM} exec --env ENV -- CMD ARGS"))
    environment = config.load(env, root=root, hosts=hosts)
    environment, service = _placed(environment, hosts, service)
    with opened(environment) as fleet:
        names = [host.name for host in fleet.hosts]
        out = HostOutput(sys.stdout, hosts=names, secrets=environment.secrets)
        err = HostOutput(sys.stderr, hosts=names, secrets=environment.secrets)
        ended = Event()
        commands = [_command(host, fleet, service, argv, out, err, ended) for host in fleet.hosts]
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
    host: FabricHost, fleet: Fleet, service: str, argv: Sequence[str], out: HostOutput, err: HostOutput, ended: Event
) -> Callable[[], int | Exception]:
    """Return the function that runs the command on one host and returns its status or its error."""
    script = scripts.execute(fleet.targets[host.name].application, service, argv)

    def run() -> int | Exception:
        try:
            return host.stream(
                script,
                lambda piece: out.feed(host.name, piece),
                lambda piece: err.feed(host.name, piece),
                cancelled=ended,
            )
        except (RollingError, Cancelled) as error:
            return error
        finally:
            out.end(host.name)
            err.end(host.name)

    return run


def shell(env: str | None, *, root: Path, hosts: tuple[str, ...] = (), service: str = "") -> int:
    """Open a shell in the active container of one host, and return the status of the shell."""
    environment = config.load(env, root=root, hosts=hosts)
    environment, service = _placed(environment, hosts, service)
    names = [target.name for target in environment.targets]
    if len(names) != 1:
        raise usage_error(("--host", f"{len(names)} hosts", f"one of: {', '.join(names)}"))
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(
            "a shell requires a terminal, but standard input or output is not one.",
            next_step=f"{PROGRAM} exec --env {environment.name} --host {names[0]} -- CMD runs one command",
        )
    with opened(environment) as fleet:
        host = fleet.hosts[0]
        command = scripts.shell(fleet.targets[host.name].application, service)
        try:
            return host.run_interactive(command, sys.stdin.fileno(), sys.stdout.fileno())
        except ConnectionDropped as error:
            raise ConnectionDropped(error.message, next_step="run the same command to open another shell") from error


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
