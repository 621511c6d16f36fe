"""`inv health`: check every host in one round trip each, once or repeatedly."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

from rolling_upgrade import config
from rolling_upgrade.config import validators
from rolling_upgrade.console.output import print_lines, print_result
from rolling_upgrade.console.text import count, one_line, table, unreachable_lines
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.model import Application, Check, Environment, HealthReport
from rolling_upgrade.engine.untrusted import Malformed
from rolling_upgrade.errors import ConfigError, ExitCode, HostUnreachable, usage_error
from rolling_upgrade.features.health import shell
from rolling_upgrade.features.watchdog import workflow as watchdog
from rolling_upgrade.ssh.fleet import Fleet, opened

#: The timeout of one check: the daily integrity check of the database takes longest.
CHECK_SECONDS = 180.0
#: The report of each host, or the error of an unreachable one.
Reports = Mapping[str, HealthReport | HostUnreachable]

T = TypeVar("T")


def health(
    env: str | None,
    *,
    root: Path,
    hosts: tuple[str, ...] = (),
    once: bool = False,
    verbose: bool = False,
    json: bool = False,
    interval: str = "",
    max_failures: str = "",
    auto_recovery: bool = False,
) -> ExitCode:
    """Print the health of every host. FAILED when a check failed or a host was unreachable at the last attempt.

    Without `once` the check repeats on a terminal, and with an interval or a number of failures.
    """
    chosen, limit = interval_seconds(interval), _parsed("--max-failures", max_failures, validators.integer(1, 1000))
    environment = config.load(env, root=root, hosts=hosts)
    if auto_recovery and (code := _install_watchdog(environment, root, hosts)):
        return code
    repeats = bool(chosen or limit) or (not json and sys.stdout.isatty())
    pause = chosen or environment.targets[0].application.watch.interval_seconds
    failures = 0
    with opened(environment) as fleet:
        while True:
            reports = check_hosts(fleet)
            lines = health_lines(reports, environment.name, verbose=verbose)
            print_result(health_json(reports, environment.name) if json else lines, environment.secrets)
            healthy = all(map(is_healthy, reports.values()))
            failures = 0 if healthy else failures + 1
            code = ExitCode.DONE if healthy else ExitCode.FAILED
            if once or not repeats or failures == limit:
                return code
            if not json:
                print_lines(["", f"Next check in {pause:g} s; Ctrl-C ends it.", ""], environment.secrets)
            try:
                time.sleep(pause)
            except KeyboardInterrupt:
                return code


def interval_seconds(text: str) -> float | None:
    """Parse the pause between checks; None for no text. Raises ConfigError."""
    return _parsed("--interval", text, validators.INTERVAL)


def _parsed(option: str, text: str, parse: Callable[[str], T]) -> T | None:
    try:
        return parse(text) if text else None
    except ValueError as error:
        raise usage_error((option, repr(text), str(error))) from None


def _install_watchdog(environment: Environment, root: Path, hosts: tuple[str, ...]) -> ExitCode:
    """Install the watchdog on every host. Raises ConfigError when recovery is disabled."""
    if not all(target.application.watch.enabled for target in environment.targets):
        raise ConfigError(
            "--auto-recovery: AUTO_RECOVERY_ENABLED is false, so the watchdog would recover nothing. "
            "Nothing was contacted.",
            next_step=f"AUTO_RECOVERY_ENABLED=true in the env file of {environment.name}, or no --auto-recovery",
        )
    return watchdog.install(environment.name, root=root, hosts=hosts)


def check_hosts(fleet: Fleet) -> Reports:
    """Check every host once; return its report or error."""
    return fleet.on_each(lambda host: check_host(host, fleet.targets[host.name].application))


def check_host(host: Host, app: Application, *, cancelled: Event | None = None) -> HealthReport:
    """Run every check of one host in one round trip. Raises HostUnreachable, also for a malformed answer."""
    answer = host.run(shell.check(app), timeout_seconds=CHECK_SECONDS, cancelled=cancelled)
    try:
        return shell.parse(app, host.name, answer.output, time.time())
    except Malformed as error:
        # A malformed answer of one host does not hide the others.
        message = f"{host.name}: {error}: {answer.output_tail}"
        raise HostUnreachable(message, next_step=f"log in to {host.name} and see what a login shell prints") from error


def health_lines(reports: Reports, environment: str, *, verbose: bool = False) -> list[str]:
    """Return a line for each host, its failed checks, with `verbose` all its checks, and the verdict."""
    lines: list[str] = []
    for name, report in reports.items():
        if isinstance(report, HostUnreachable):
            lines += unreachable_lines({name: str(report)})
            continue
        many = len(report.checks)
        state = f"{len(report.failed)} of {many} checks FAILED" if report.failed else f"healthy, {count(many, 'check')}"
        page = f", maintenance page on ({report.state.fact('maintenance')})" if report.state.fact("maintenance") else ""
        lock = report.state.held_lock
        held = f", locked by {lock.owner}: {lock.reason}" if lock else ""
        lines.append(f"{name}  {state}{page}{held}")
        shown = [*report.failed, *(check for check in report.checks if check.ok)] if verbose else report.failed
        lines += [f"  {row}" for row in table([_row(check) for check in shown])]
    return [*lines, "", _verdict(reports, environment)]


def _row(check: Check) -> tuple[str, ...]:
    took = f"{check.milliseconds} ms" if check.milliseconds else ""
    return ("ok" if check.ok else "FAILED", check.name, one_line(check.detail), took)


def _verdict(reports: Reports, environment: str) -> str:
    unhealthy = {name: report for name, report in reports.items() if not is_healthy(report)}
    if not unhealthy:
        return f"{environment}: {count(len(reports), 'host')}, healthy"
    named = "; ".join(f"{name}: {_names(report)}" for name, report in unhealthy.items())
    return f"{environment}: {count(len(reports), 'host')}, UNHEALTHY: {named}"


def _names(report: HealthReport | HostUnreachable) -> str:
    if isinstance(report, HostUnreachable):
        return "unreachable"
    return ", ".join(check.name for check in report.failed)


def is_healthy(result: HealthReport | HostUnreachable) -> bool:
    """Whether a host was reached and every check passed."""
    return isinstance(result, HealthReport) and not result.failed


def health_json(reports: Reports, environment: str) -> dict[str, Any]:
    """Return the reports, with all checks, as a JSON object."""
    hosts: list[dict[str, Any]] = [
        {"host": name, "ok": False, "error": str(report)}
        if isinstance(report, HostUnreachable)
        else {"host": name, "ok": not report.failed, "checks": report.checks}
        for name, report in reports.items()
    ]
    return {"environment": environment, "hosts": hosts}
