"""Health: every check of every host in one round trip each, once or again and again. The story only."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fabfile import config
from fabfile.config import forms
from fabfile.errors import ConfigError, ExitCode, HostUnreachable, Mistake
from fabfile.model import Environment, HealthReport
from fabfile.remote import looking, observe
from fabfile.report import tell
from fabfile.report.health import health_lines, health_objects
from fabfile.workflows import watchdog
from fabfile.workflows.fleet import Fleet, opened


@dataclass(frozen=True)
class Request:
    """What the operator asked for.

    Without `once` it looks again and again: on a terminal, or where an interval or a number of bad looks is given.
    """

    environment: str | None
    root: Path
    hosts: tuple[str, ...] = ()
    once: bool = False
    verbose: bool = False
    json: bool = False
    interval: str = ""
    max_failures: str = ""
    auto_recovery: bool = False


Found = Mapping[str, HealthReport | HostUnreachable]


def health(request: Request) -> ExitCode:
    """Show how well every host is. FAILED when a check is not well or a host is not reached, by the last look."""
    asked, most = interval_seconds(request.interval), _most_failures(request.max_failures)
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    if request.auto_recovery and (code := _watched(environment, request)):
        return code
    repeats = bool(asked or most) or (not request.json and sys.stdout.isatty())
    interval = asked or environment.targets[0].application.watch.interval_seconds
    failures = 0
    with opened(environment) as fleet:
        while True:
            found = look(fleet)
            _show(found, environment, request)
            well = all(map(is_well, found.values()))
            failures = 0 if well else failures + 1
            code = ExitCode.DONE if well else ExitCode.FAILED
            if request.once or not repeats or failures == most:
                return code
            if not request.json:
                tell(["", f"Again in {interval:g} s; Ctrl-C ends it.", ""], sys.stdout, environment.secrets)
            try:
                time.sleep(interval)
            except KeyboardInterrupt:
                return code


def interval_seconds(text: str) -> float | None:
    """The pause between looks that was asked for, None without one. Raises ConfigError."""
    if not text:
        return None
    try:
        return forms.INTERVAL(text)
    except ValueError as error:
        raise _mistake("--interval", text, str(error)) from None


def _most_failures(text: str) -> int | None:
    """After how many bad looks in a row it ends, None for never."""
    if not text:
        return None
    try:
        return forms.whole(1, 1000)(text)
    except ValueError as error:
        raise _mistake("--max-failures", text, str(error)) from None


def _mistake(option: str, found: str, expected: str) -> ConfigError:
    mistake = Mistake("command line", option, repr(found), expected)
    return ConfigError("The command line has a mistake; nothing was contacted.", [mistake])


def _watched(environment: Environment, request: Request) -> ExitCode:
    """Make sure that every host has the watchdog, which recovers what stays bad. Raises ConfigError if it may not."""
    if not all(target.application.watch.enabled for target in environment.targets):
        raise ConfigError(
            "--auto-recovery: AUTO_RECOVERY_ENABLED is false, so the watchdog would recover nothing. "
            "Nothing was contacted.",
            next_step=f"AUTO_RECOVERY_ENABLED=true in the env file of {environment.name}, or no --auto-recovery",
        )
    return watchdog.install(watchdog.Request(request.environment, request.root, request.hosts))


def look(fleet: Fleet) -> Found:
    """Every host's report, or why there is none."""
    return observe.on_each(
        fleet.hosts,
        fleet.environment.rollout.parallel,
        lambda host: looking.look(host, fleet.targets[host.name].application),
    )


def is_well(found: HealthReport | HostUnreachable) -> bool:
    """Whether a host was reached and every check is well."""
    return isinstance(found, HealthReport) and not found.failed


def _show(found: Found, environment: Environment, request: Request) -> None:
    if request.json:
        content = {"environment": environment.name, "hosts": health_objects(found)}
        tell([json.dumps(content, indent=2)], sys.stdout, environment.secrets)
        return
    tell(health_lines(found, environment.name, verbose=request.verbose), sys.stdout, environment.secrets)
