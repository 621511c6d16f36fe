"""The watchdog on the hosts: put in place, taken away, looked at. The story only."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fabfile import config, render
from fabfile.commands import watchdog
from fabfile.commands.shell import Script
from fabfile.errors import ExitCode, HostUnreachable, PreflightError, RollingError, StepFailed
from fabfile.model import Environment, Target
from fabfile.remote import observe
from fabfile.remote.host import Answer, Host
from fabfile.report import tell
from fabfile.report.watchdogs import Watchdog, watchdog_lines, watchdog_objects
from fabfile.watchdog import keeping
from fabfile.workflows.fleet import opened

SECONDS = 90.0


@dataclass(frozen=True)
class Request:
    """What the operator asked for."""

    environment: str | None
    root: Path
    hosts: tuple[str, ...] = ()
    lines: int = 100
    json: bool = False


def install(request: Request) -> ExitCode:
    """Put the watchdog on every host, or a newer one in its place; the same again changes nothing."""
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    program = render.watchdog_program()
    done = {
        "installed": f"watches every {_interval(environment)}",
        "replaced": "replaced; it watches again",
        "unchanged": "watches already; nothing changed",
    }

    def script(target: Target) -> Script:
        return watchdog.install(target.application, _files(environment, target, program))

    found = _on_each(environment, script)
    return _report(environment, found, lambda name, answer: f"{name}: {done.get(answer.output.strip(), '?')}")


def _interval(environment: Environment) -> str:
    return f"{environment.targets[0].application.watch.interval_seconds:g} s"


def _files(environment: Environment, target: Target, program: bytes) -> watchdog.Files:
    app = target.application
    settings = keeping.Settings(
        app.name,
        target.name,
        environment.name,
        app.watch,
        environment.rollout,
        app.thresholds,
        app.channels,
        app.metrics_dir,
        app.request_metrics,
    )
    return watchdog.Files(program, keeping.dump(settings), render.watchdog_unit(app))


def installation(environment: Environment, target: Target) -> tuple[Script, str]:
    """What installs one host's watchdog, in the deploy user's session, and the version that is there afterwards."""
    files = _files(environment, target, render.watchdog_program())
    return watchdog.install(target.application, files), files.version


def uninstall(request: Request) -> ExitCode:
    """Take the watchdog away; a recovery that runs goes on to its end."""
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    words = {"gone": "the watchdog is gone", "nothing": "there is none; nothing changed"}
    found = _on_each(environment, lambda target: watchdog.uninstall(target.application))
    return _report(environment, found, lambda name, answer: f"{name}: {words.get(answer.output.strip(), '?')}")


def status(request: Request) -> ExitCode:
    """Show each host's watchdog. FAILED when one does not run or cannot be reached."""
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    version = {
        target.name: _files(environment, target, render.watchdog_program()).version for target in environment.targets
    }
    found = _on_each(environment, lambda target: watchdog.status(target.application))
    seen = {
        name: Watchdog.read(answer.output, version[name])
        for name, answer in found.items()
        if isinstance(answer, Answer)
    }
    lost = {name: str(error) for name, error in found.items() if isinstance(error, RollingError)}
    if request.json:
        objects = watchdog_objects(seen, lost)
        tell(
            [json.dumps({"environment": environment.name, "hosts": objects}, indent=2)], sys.stdout, environment.secrets
        )
    else:
        tell(watchdog_lines(seen, lost, environment.name), sys.stdout, environment.secrets)
    return ExitCode.DONE if not lost and all(one.runs for one in seen.values()) else ExitCode.FAILED


def logs(request: Request) -> ExitCode:
    """Print the end of each watchdog's log."""
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    found = _on_each(environment, lambda target: watchdog.log(target.application, request.lines))
    several = len(environment.targets) > 1

    def lines(name: str, answer: Answer) -> str:
        return "\n".join(f"{name} | {row}" if several else row for row in answer.output.splitlines())

    return _report(environment, found, lines)


def _on_each(environment: Environment, script: Callable[[Target], Script]) -> dict[str, Answer | RollingError]:
    with opened(environment) as fleet:

        def one(host: Host) -> Answer | RollingError:
            answer = host.run(script(fleet.targets[host.name]), timeout_seconds=SECONDS)
            return answer if answer.ok else _error(host.name, answer)

        return {**observe.on_each(fleet.hosts, environment.rollout.parallel, one)}


def _error(host: str, answer: Answer) -> RollingError:
    if answer.status == watchdog.NO_PYTHON_STATUS:
        return PreflightError(
            f"{host}: the watchdog needs python3 of at least 3.10; found: {answer.last_words or 'none'}. "
            "Nothing was changed.",
            next_step=f"apt-get install python3 on {host}, then the same command again",
        )
    if answer.status == watchdog.NOT_PREPARED_STATUS:
        return PreflightError(
            f"{host}: the application's directory is missing or not writable. Nothing was changed.",
            next_step=f"inv setup for {host}, then the same command again",
        )
    return StepFailed(f"{host}: failed (status {answer.status}).\n{answer.last_words}")


def _report(
    environment: Environment, found: Mapping[str, Answer | RollingError], line: Callable[[str, Answer], str]
) -> ExitCode:
    rows = [line(name, one) if isinstance(one, Answer) else str(one) for name, one in found.items()]
    tell(rows, sys.stdout, environment.secrets)
    errors = [one for one in found.values() if isinstance(one, RollingError)]
    if not errors:
        return ExitCode.DONE
    if len(errors) < len(found):
        return ExitCode.PARTLY_DONE
    return ExitCode.REFUSED if isinstance(errors[0], HostUnreachable | PreflightError) else ExitCode.FAILED
