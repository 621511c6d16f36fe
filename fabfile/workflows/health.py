"""Health: every check of every host in one round trip each, once or again and again. The story only."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fabfile import config
from fabfile.errors import ExitCode, HostUnreachable
from fabfile.model import Environment, HealthReport
from fabfile.remote import looking, observe
from fabfile.report import tell
from fabfile.report.health import health_lines, health_objects
from fabfile.workflows.fleet import Fleet, opened


@dataclass(frozen=True)
class Request:
    """What the operator asked for; without `once` it looks again and again, where there is a terminal."""

    environment: str | None
    root: Path
    hosts: tuple[str, ...] = ()
    once: bool = False
    verbose: bool = False
    json: bool = False


Found = Mapping[str, HealthReport | HostUnreachable]


def health(request: Request) -> ExitCode:
    """Show how well every host is. FAILED when a check is not well or a host is not reached, by the last look."""
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    again = not request.once and not request.json and sys.stdout.isatty()
    interval = environment.targets[0].application.watch.interval_seconds
    with opened(environment) as fleet:
        while True:
            found = look(fleet)
            _show(found, environment, request)
            if not again:
                return ExitCode.DONE if all(map(is_well, found.values())) else ExitCode.FAILED
            tell(["", f"Again in {interval:g} s; Ctrl-C ends it.", ""], sys.stdout, environment.secrets)
            try:
                time.sleep(interval)
            except KeyboardInterrupt:
                return ExitCode.DONE if all(map(is_well, found.values())) else ExitCode.FAILED


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
