"""Logs: what containers, Nginx and units of many hosts said, merged by time, or followed as it comes."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fabfile import config
from fabfile.commands import logs as reading
from fabfile.errors import ConfigError, ExitCode, HostUnreachable, Mistake
from fabfile.model import Application, Color, Environment
from fabfile.model.logs import LogLine
from fabfile.remote import observe
from fabfile.remote.follow import Reading, follow
from fabfile.remote.host import Answer, Host
from fabfile.report.logs import LogWriter
from fabfile.workflows.fleet import Fleet, opened

FETCH_SECONDS = 120.0


@dataclass(frozen=True)
class Request:
    """What the operator asked for, as it was typed."""

    environment: str | None
    root: Path
    hosts: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    since: str = ""
    lines: str = ""
    grep: str = ""
    color: str = ""
    all_colors: bool = False
    follow: bool = False
    json: bool = False


def logs(request: Request) -> ExitCode:
    """Print the logs of the hosts. FAILED when a host or a source could not be read; what could be is shown."""
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    sources = chosen_services(environment, request.services, extra=(reading.NGINX, reading.UNITS))
    wanted, grep = _wanted(request), _pattern(request.grep)
    writer = LogWriter(
        sys.stdout,
        sys.stderr,
        hosts=[target.name for target in environment.targets],
        sources=sources,
        secrets=environment.secrets,
        grep=grep,
        json=request.json,
    )
    with opened(environment) as fleet:
        if request.follow:
            whole = follow(_readings(fleet, sources), wanted, writer.line, lambda: writer.gone)
            return ExitCode.DONE if whole else ExitCode.FAILED
        return _fetch(fleet, sources, wanted, writer)


def chosen_services(environment: Environment, asked: Sequence[str], extra: Sequence[str] = ()) -> tuple[str, ...]:
    """The services that were asked for, all when none was. Raises ConfigError for one that there is not."""
    known = list(dict.fromkeys(s.name for target in environment.targets for s in target.application.services))
    unknown = [name for name in asked if name not in {*known, *extra}]
    if unknown:
        expected = f"one of: {', '.join((*known, *extra))}"
        mistakes = [Mistake("command line", "--service", repr(name), expected) for name in unknown]
        raise ConfigError("The command line has a mistake; nothing was contacted.", mistakes)
    return tuple(dict.fromkeys(asked)) or tuple(known)


def _wanted(request: Request) -> reading.Wanted:
    """Which lines are wanted. Raises ConfigError with everything that cannot be understood."""
    mistakes = []
    since, color = None, None
    lines = 0 if request.since else 100
    if request.since:
        try:
            since = reading.since(request.since)
        except (ValueError, OverflowError):
            expected = "90s, 10m, 2h, 1d or a time such as 2026-11-23T07:00:00"
            mistakes.append(Mistake("command line", "--since", repr(request.since), expected))
    if request.lines:
        if re.fullmatch(r"[0-9]{1,7}", request.lines):
            lines = int(request.lines)
        else:
            mistakes.append(Mistake("command line", "--lines", repr(request.lines), "a number; 0 for all"))
    if request.color:
        if request.color in set(Color):
            color = Color(request.color)
        else:
            mistakes.append(Mistake("command line", "--color", repr(request.color), "blue or green"))
        if request.all_colors:
            mistakes.append(Mistake("command line", "--color", "--all-colors beside it", "one of the two"))
    if mistakes:
        raise ConfigError("The command line has a mistake; nothing was contacted.", mistakes)
    return reading.Wanted(since, lines, color, request.all_colors)


def _pattern(text: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text else None
    except re.error as error:
        mistake = Mistake("command line", "--grep", repr(text), f"a regular expression ({error})")
        raise ConfigError("The command line has a mistake; nothing was contacted.", [mistake]) from error


def _of(app: Application, sources: Sequence[str]) -> tuple[str, ...]:
    """Those of the sources that this host has: hosts may run different services."""
    services = {service.name for service in app.services}
    return tuple(source for source in sources if source in {*services, reading.NGINX, reading.UNITS})


def _readings(fleet: Fleet, sources: Sequence[str]) -> list[Reading]:
    apps = [(host, fleet.targets[host.name].application) for host in fleet.hosts]
    return [Reading(host, app, source) for host, app in apps for source in _of(app, sources)]


def _fetch(fleet: Fleet, sources: Sequence[str], wanted: reading.Wanted, writer: LogWriter) -> ExitCode:
    def read(host: Host) -> Answer:
        app = fleet.targets[host.name].application
        return host.run(reading.fetch(app, _of(app, sources), wanted), timeout_seconds=FETCH_SECONDS)

    found = observe.on_each(fleet.hosts, fleet.environment.rollout.parallel, read)
    lines: list[LogLine] = []
    for name, answer in found.items():
        if isinstance(answer, HostUnreachable):
            lines.append(LogLine(name, "", "", str(answer), note=True))
            continue
        lines += [reading.parse(name, line) for line in answer.output.split("\n") if line]
        if answer.status not in {0, reading.UNREADABLE_STATUS}:
            lines.append(LogLine(name, "", "", f"the logs could not be read: {answer.errors.strip()}", note=True))
    for line in in_order(lines, _cutoff(wanted)):
        writer.line(line)
    whole = all(isinstance(answer, Answer) and answer.ok for answer in found.values())
    return ExitCode.DONE if whole else ExitCode.FAILED


def in_order(lines: Iterable[LogLine], cutoff: float = 0) -> list[LogLine]:
    """The lines by time, those of one source in their own order; a line without a time belongs to the one before it.

    Nginx cannot be asked for a time: its lines from before `cutoff` are left out here.
    """
    latest: dict[tuple[str, str, str], float] = {}
    timed: list[tuple[float, LogLine]] = []
    for line in lines:
        place = (line.host, line.source, line.label)
        latest[place] = max(line.at, latest.get(place, 0.0))
        if not (line.source == reading.NGINX and not line.note and latest[place] < cutoff):
            timed.append((latest[place], line))
    return [line for _, line in sorted(timed, key=lambda pair: pair[0])]


def _cutoff(wanted: reading.Wanted) -> float:
    if wanted.since is None:
        return 0
    if wanted.since.ago_seconds is not None:
        return time.time() - wanted.since.ago_seconds
    return datetime.fromisoformat(wanted.since.moment).timestamp()
