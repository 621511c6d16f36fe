"""Install, remove and inspect the watchdog on the hosts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rolling_upgrade import config, rendering
from rolling_upgrade.console.output import print_lines, print_result
from rolling_upgrade.console.text import duration, table, unreachable_lines
from rolling_upgrade.engine.host import Answer, Host
from rolling_upgrade.engine.model import Environment, Target, exit_code
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import PROGRAM, ExitCode, PreflightError, RollingError, StepFailed
from rolling_upgrade.features.watchdog import shell, state_store
from rolling_upgrade.ssh.fleet import opened

TIMEOUT_SECONDS = 90.0


def install(env: str | None, *, root: Path, hosts: tuple[str, ...] = ()) -> ExitCode:
    """Install the watchdog on every host, or replace another version."""
    environment = config.load(env, root=root, hosts=hosts)
    files = {target.name: _files(environment, target) for target in environment.targets}
    interval = environment.targets[0].application.watch.interval_seconds
    results = {
        "installed": f"the watchdog is installed and observes every {interval:g} s",
        "replaced": "the watchdog is replaced and runs again",
        "unchanged": "the watchdog runs already; nothing changed",
    }
    answers = _on_each(environment, lambda target: shell.install(target.application, files[target.name]), finish=True)
    return _report(environment, answers, lambda name, answer: f"{name}: {results.get(answer.output.strip(), '?')}")


def _files(environment: Environment, target: Target) -> shell.Files:
    app = target.application
    settings = state_store.Settings(
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
    unit = rendering.systemd_unit("watchdog.service", app)
    return shell.Files(rendering.engine(), state_store.dump_settings(settings), unit)


def installation(environment: Environment, target: Target) -> tuple[Script, str]:
    """The script that installs one host's watchdog as the deploy user, and the version it installs."""
    files = _files(environment, target)
    return shell.install(target.application, files), files.version


def uninstall(env: str | None, *, root: Path, hosts: tuple[str, ...] = ()) -> ExitCode:
    """Remove the watchdog; a recovery in progress finishes."""
    environment = config.load(env, root=root, hosts=hosts)
    results = {"gone": "the watchdog is removed", "nothing": "no watchdog is installed; nothing changed"}
    answers = _on_each(environment, lambda target: shell.uninstall(target.application), finish=True)
    return _report(environment, answers, lambda name, answer: f"{name}: {results.get(answer.output.strip(), '?')}")


def status(env: str | None, *, root: Path, hosts: tuple[str, ...] = (), json: bool = False) -> ExitCode:
    """Show each host's watchdog. FAILED when one does not run or its host is unreachable."""
    environment = config.load(env, root=root, hosts=hosts)
    versions = {target.name: _files(environment, target).version for target in environment.targets}
    answers = _on_each(environment, lambda target: shell.status(target.application))
    watchdogs = {
        name: shell.parse_status(answer.output, versions[name])
        for name, answer in answers.items()
        if isinstance(answer, Answer)
    }
    errors = {name: str(error) for name, error in answers.items() if isinstance(error, RollingError)}
    view = watchdog_json if json else watchdog_lines
    print_result(view(watchdogs, errors, environment.name), environment.secrets)
    return ExitCode.DONE if not errors and all(status.runs for status in watchdogs.values()) else ExitCode.FAILED


def watchdog_lines(
    watchdogs: Mapping[str, shell.WatchdogStatus], unreachable: Mapping[str, str], environment: str
) -> list[str]:
    """Return a table of the watchdogs, and the next command for each that does not run."""
    rows = [("HOST", "WATCHDOG", "LAST CHECK", "RECOVERIES", "RESTARTS", "LAST OUTPUT")]
    for name, status in watchdogs.items():
        last_check = f"{duration(status.alive_seconds)} ago" if status.runs else "-"
        rows.append((name, _state(status), last_check, str(status.recoveries), str(status.starts), status.last))
    lines = table(rows)
    for name, status in watchdogs.items():
        if not status.installed or not status.runs:
            lines.append(f"{name}: Next: {PROGRAM} monitor.install --env {environment} --hosts {name}")
        elif not status.current:
            lines.append(
                f"{name}: differs from this clone's watchdog. Next: {PROGRAM} monitor.install --env {environment}"
            )
        if status.given_up:
            lines.append(
                f"{name}: gave up, recovery needs an operator. Next: {PROGRAM} inspect --env {environment} --host {name}"
            )
    return [*lines, *unreachable_lines(unreachable)]


def _state(status: shell.WatchdogStatus) -> str:
    if not status.installed:
        return "not installed"
    return ("gave up" if status.given_up else "running") if status.runs else "NOT RUNNING"


def watchdog_json(
    watchdogs: Mapping[str, shell.WatchdogStatus], unreachable: Mapping[str, str], environment: str
) -> dict[str, Any]:
    """Return the states and errors as a JSON object."""
    hosts: list[dict[str, Any]] = [{"host": name, **to_plain(status)} for name, status in watchdogs.items()]
    hosts += [{"host": name, "error": error} for name, error in unreachable.items()]
    return {"environment": environment, "hosts": hosts}


def logs(env: str | None, *, root: Path, hosts: tuple[str, ...] = (), lines: int = 100) -> ExitCode:
    """Print the end of each watchdog's log."""
    environment = config.load(env, root=root, hosts=hosts)
    answers = _on_each(environment, lambda target: shell.log(target.application, lines))
    several = len(environment.targets) > 1

    def rows(name: str, answer: Answer) -> str:
        return "\n".join(f"{name} | {row}" if several else row for row in answer.output.splitlines())

    return _report(environment, answers, rows)


def _on_each(
    environment: Environment, script: Callable[[Target], Script], *, finish: bool = False
) -> dict[str, Answer | RollingError]:
    with opened(environment) as fleet:

        def run(host: Host) -> Answer | RollingError:
            answer = host.run(script(fleet.targets[host.name]), timeout_seconds=TIMEOUT_SECONDS)
            return answer if answer.ok else _error(host.name, answer)

        return {**fleet.on_each(run, finish=finish)}


def _error(host: str, answer: Answer) -> RollingError:
    if answer.status == shell.NO_PYTHON_STATUS:
        return PreflightError(
            f"{host}: the watchdog needs python3 of at least 3.10; found: {answer.output_tail or 'none'}. "
            "Nothing was changed.",
            next_step=f"apt-get install python3 on {host}, then the same command again",
        )
    if answer.status == shell.NOT_PREPARED_STATUS:
        return PreflightError(
            f"{host}: the application's directory is missing or not writable. Nothing was changed.",
            next_step=f"{PROGRAM} setup for {host}, then the same command again",
        )
    return StepFailed(f"{host}: failed (status {answer.status}).\n{answer.output_tail}")


def _report(
    environment: Environment, answers: Mapping[str, Answer | RollingError], line: Callable[[str, Answer], str]
) -> ExitCode:
    rows = [line(name, answer) if isinstance(answer, Answer) else str(answer) for name, answer in answers.items()]
    print_lines(rows, environment.secrets)
    return exit_code(answer if isinstance(answer, RollingError) else None for answer in answers.values())
