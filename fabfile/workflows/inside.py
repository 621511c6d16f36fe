"""Exec and shell: a command in the active containers, or a person's shell in one. They change what the person does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from fabfile import config
from fabfile.commands import inside
from fabfile.errors import ConfigError, ConnectionDropped, ExitCode, Interrupted, Mistake, RollingError
from fabfile.model import Environment
from fabfile.remote.fabric_host import FabricHost
from fabfile.remote.host import Cancelled
from fabfile.remote.listening import listen
from fabfile.report.spoken import Spoken
from fabfile.workflows.fleet import Fleet, opened


@dataclass(frozen=True)
class Request:
    """What the operator asked for; without a service the first one of `services.yaml` is meant."""

    environment: str | None
    root: Path
    hosts: tuple[str, ...] = ()
    service: str = ""
    argv: tuple[str, ...] = ()


def execute(request: Request) -> int:
    """Run a command in the active container of each host.

    The status of the command itself on a single host; on several DONE, or FAILED when it failed on one.
    """
    if not request.argv:
        raise _mistake("--", "no command", "the command behind `--`: inv exec --env ENV -- CMD ARGS")
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    service = _service(environment, request.service)
    with opened(environment) as fleet:
        names = [host.name for host in fleet.hosts]
        out = Spoken(sys.stdout, hosts=names, secrets=environment.secrets)
        err = Spoken(sys.stderr, hosts=names, secrets=environment.secrets)
        ended = Event()
        jobs = [_job(host, fleet, service, request.argv, out, err, ended) for host in fleet.hosts]
        results = listen(jobs, ended, lambda: out.gone)
    if len(results) == 1:
        return _alone(results[0])
    if any(isinstance(result, Cancelled) for result in results):
        raise Interrupted("interrupted; the command was ended where it still ran.")
    for name, result in zip(names, results, strict=True):
        if result != 0:
            said = f"exited with {result}" if isinstance(result, int) else str(result)
            err.hear(name, f"{said}\n".encode())
    return ExitCode.DONE if not any(results) else ExitCode.FAILED


def _alone(result: int | Exception) -> int:
    if isinstance(result, Cancelled):
        raise Interrupted("interrupted; the command was ended.")
    if isinstance(result, Exception):
        raise result
    return result


def _job(
    host: FabricHost, fleet: Fleet, service: str, argv: Sequence[str], out: Spoken, err: Spoken, ended: Event
) -> Callable[[], int | Exception]:
    """One host's part: the command's status, or why there is none."""
    script = inside.execute(fleet.targets[host.name].application, service, argv)

    def work() -> int | Exception:
        try:
            return host.stream(
                script,
                lambda piece: out.hear(host.name, piece),
                lambda piece: err.hear(host.name, piece),
                cancelled=ended,
            )
        except (RollingError, Cancelled) as error:
            return error
        finally:
            out.end(host.name)
            err.end(host.name)

    return work


def shell(request: Request) -> int:
    """Open a shell in the active container of one host; the status of the shell."""
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    service = _service(environment, request.service)
    names = [target.name for target in environment.targets]
    if len(names) != 1:
        raise _mistake("--host", f"{len(names)} hosts", f"one of: {', '.join(names)}")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(
            "a shell needs a terminal, and there is none.",
            next_step=f"inv exec --env {environment.name} --host {names[0]} -- CMD runs one command",
        )
    with opened(environment) as fleet:
        host = fleet.hosts[0]
        command = inside.shell(fleet.targets[host.name].application, service)
        try:
            return host.converse(command, sys.stdin.fileno(), sys.stdout.fileno())
        except ConnectionDropped as error:
            raise ConnectionDropped(error.message, next_step="the same command opens another shell") from error


def _service(environment: Environment, asked: str) -> str:
    """The service that is meant. Raises ConfigError for one that a host does not have."""
    everywhere = [
        service.name
        for service in environment.targets[0].application.services
        if all(service.name in {s.name for s in target.application.services} for target in environment.targets)
    ]
    if asked and asked not in everywhere:
        raise _mistake("--service", repr(asked), f"one of: {', '.join(everywhere)}")
    return asked or everywhere[0]


def _mistake(option: str, found: str, expected: str) -> ConfigError:
    mistake = Mistake("command line", option, found, expected)
    return ConfigError("The command line has a mistake; nothing was contacted.", [mistake])
