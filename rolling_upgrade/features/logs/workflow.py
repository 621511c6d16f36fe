"""`inv logs`: print the logs of containers, Nginx and units of many hosts, merged by time, or follow them."""

from __future__ import annotations

import json as json_format
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

from rolling_upgrade import config
from rolling_upgrade.console.output import Output, has_colors
from rolling_upgrade.console.task import split_words
from rolling_upgrade.console.text import one_line, pad, width
from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.host import Answer, Host
from rolling_upgrade.engine.model import Application, Color, Environment
from rolling_upgrade.engine.untrusted import LARGE_ANSWER_BYTES
from rolling_upgrade.errors import ExitCode, HostUnreachable, usage_error
from rolling_upgrade.features.logs import shell
from rolling_upgrade.features.logs.follow import LogSource
from rolling_upgrade.features.logs.follow import follow as follow_logs
from rolling_upgrade.features.logs.shell import LogLine, LogQuery
from rolling_upgrade.ssh.fleet import Fleet, opened

FETCH_SECONDS = 120.0
#: The maximum number of lines of one host; --lines and --since give fewer.
MAX_LOG_LINES = 400_000


def logs(
    env: str | None,
    *,
    root: Path,
    hosts: tuple[str, ...] = (),
    service: Sequence[str] = (),
    job: Sequence[str] = (),
    since: str = "",
    lines: str = "",
    grep: str = "",
    color: str = "",
    all_colors: bool = False,
    follow: bool = False,
    json: bool = False,
) -> ExitCode:
    """Print the logs of the hosts. FAILED when a host or a source could not be read; the others are printed."""
    environment = config.load(env, root=root, hosts=hosts)
    sources = _chosen_jobs(environment, job)
    if service or not sources:
        sources = (*chosen_services(environment, service, extra=(shell.NGINX, shell.UNITS)), *sources)
    if not hosts:
        environment = replace(
            environment,
            targets=tuple(target for target in environment.targets if _sources_of(target.application, sources)),
        )
    query = _query(since, lines, color, all_colors=all_colors)
    writer = LogWriter(
        sys.stdout,
        sys.stderr,
        hosts=[target.name for target in environment.targets],
        sources=sources,
        secrets=environment.secrets,
        grep=_pattern(grep),
        json=json,
    )
    with opened(environment) as fleet:
        if follow:
            complete = follow_logs(_log_sources(fleet, sources), query, writer.line, lambda: writer.closed)
            return ExitCode.DONE if complete else ExitCode.FAILED
        return _fetch(fleet, sources, query, writer)


def chosen_services(environment: Environment, given: Sequence[str], extra: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the services that `--service` names, by default all. Raises ConfigError for an unknown one."""
    names = split_words(given)
    known = list(
        dict.fromkeys(service.name for target in environment.targets for service in target.application.services)
    )
    unknown = [name for name in names if name not in {*known, *extra}]
    if unknown:
        expected = f"one of: {', '.join((*known, *extra))}"
        issues = [("--service", repr(name), expected) for name in unknown]
        raise usage_error(*issues)
    return tuple(dict.fromkeys(names)) or tuple(known)


def _chosen_jobs(environment: Environment, given: Sequence[str]) -> tuple[str, ...]:
    """Return the sources of the jobs that `--job` names. Raises ConfigError for an unknown one."""
    names = tuple(dict.fromkeys(split_words(given)))
    known = sorted({job.name for target in environment.targets for job in target.application.jobs})
    unknown = [name for name in names if name not in known]
    if unknown:
        expected = f"one of: {', '.join(known)}" if known else "a job of services.yaml, which has none for these hosts"
        issues = [("--job", repr(name), expected) for name in unknown]
        raise usage_error(*issues)
    return tuple(map(shell.job_source, names))


def _query(since: str = "", lines: str = "", color: str = "", *, all_colors: bool = False) -> LogQuery:
    """Build the query. Raises ConfigError with every invalid option."""
    issues = []
    start, chosen_color = None, None
    number = 0 if since else 100
    if since:
        try:
            start = shell.since(since)
        except (ValueError, OverflowError):
            expected = "90s, 10m, 2h, 1d or a time such as 2026-11-23T07:00:00"
            issues.append(("--since", repr(since), expected))
    if lines:
        if re.fullmatch(r"[0-9]{1,7}", lines):
            number = int(lines)
        else:
            issues.append(("--lines", repr(lines), "a number; 0 for all"))
    if color:
        if color in set(Color):
            chosen_color = Color(color)
        else:
            issues.append(("--color", repr(color), "blue or green"))
        if all_colors:
            issues.append(("--color", "--all-colors beside it", "one of the two"))
    if issues:
        raise usage_error(*issues)
    return LogQuery(start, number, chosen_color, all_colors)


def _pattern(text: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise usage_error(("--grep", repr(text), f"a regular expression ({error})")) from error


def _sources_of(app: Application, sources: Sequence[str]) -> tuple[str, ...]:
    """Return the sources that this host has: hosts may run different services."""
    services = {service.name for service in app.services}
    jobs = {shell.job_source(job.name) for job in app.jobs}
    others = {*jobs, shell.UNITS, *([shell.NGINX] if app.has_site else [])}
    return tuple(source for source in sources if source in services | others)


def _log_sources(fleet: Fleet, sources: Sequence[str]) -> list[LogSource]:
    apps = [(host, fleet.targets[host.name].application) for host in fleet.hosts]
    return [LogSource(host, app, source) for host, app in apps for source in _sources_of(app, sources)]


def _fetch(fleet: Fleet, sources: Sequence[str], query: LogQuery, writer: LogWriter) -> ExitCode:
    def read(host: Host) -> tuple[Answer, list[LogLine]]:
        app = fleet.targets[host.name].application
        answer = host.run(
            shell.fetch(app, _sources_of(app, sources), query).answering(LARGE_ANSWER_BYTES),
            timeout_seconds=FETCH_SECONDS,
        )
        rows = untrusted.rows(answer.output, MAX_LOG_LINES)
        return answer, [shell.parse(host.name, row) for row in rows if row]

    results = fleet.on_each(read)
    lines: list[LogLine] = []
    for name, result in results.items():
        if isinstance(result, HostUnreachable):
            lines.append(LogLine(name, "", "", str(result), note=True))
            continue
        answer, printed = result
        lines += printed
        if answer.status not in {0, shell.UNREADABLE_STATUS}:
            lines.append(
                LogLine(name, "", "", f"the logs could not be read: {untrusted.tail(answer.errors)}", note=True)
            )
    for line in in_order(lines, _cutoff(query)):
        writer.line(line)
    complete = all(isinstance(result, tuple) and result[0].ok for result in results.values())
    return ExitCode.DONE if complete else ExitCode.FAILED


def in_order(lines: Iterable[LogLine], cutoff: float = 0) -> list[LogLine]:
    """Sort lines by time and keep the order within each source; a line without a time follows the line before it.

    The host cannot select Nginx lines by time, so this drops those from before `cutoff`.
    """
    latest: dict[tuple[str, str, str], float] = {}
    timed: list[tuple[float, LogLine]] = []
    for line in lines:
        place = (line.host, line.source, line.label)
        latest[place] = max(line.at, latest.get(place, 0.0))
        if not (line.source == shell.NGINX and not line.note and latest[place] < cutoff):
            timed.append((latest[place], line))
    return [line for _, line in sorted(timed, key=lambda pair: pair[0])]


def _cutoff(query: LogQuery) -> float:
    if query.since is None:
        return 0
    if query.since.ago_seconds is not None:
        return time.time() - query.since.ago_seconds
    return datetime.fromisoformat(query.since.moment).timestamp()


#: The colors of the hosts in order: cyan, yellow, magenta, green, blue, then the bright ones.
_COLORS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)


class LogWriter:
    """Writes lines that match `grep` as `HOST SOURCE LABEL | TIME TEXT` to `out`, and notes to `notes`."""

    def __init__(
        self,
        out: TextIO,
        notes: TextIO,
        *,
        hosts: Sequence[str],
        sources: Sequence[str] = (),
        secrets: Sequence[str] = (),
        grep: re.Pattern[str] | None = None,
        json: bool = False,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._output, self._notes = Output(out, secrets), Output(notes, secrets)
        self._grep, self._json = grep, json
        colored = has_colors(out, environ)
        self._colors = {host: _COLORS[at % len(_COLORS)] for at, host in enumerate(hosts)} if colored else {}
        widest = [max(map(width, names), default=0) for names in (hosts, sources, [color.value for color in Color])]
        self._width = sum(widest) + 2

    @property
    def closed(self) -> bool:
        """Whether a write failed, after which nothing more is written."""
        return self._output.closed

    def line(self, line: LogLine) -> None:
        """Write one line; a note is written even if `grep` does not match it."""
        text = self._output.safe(line.text.replace("\r", "")).replace("\n", " ")
        if line.note:
            self._notes.write(f"{self._prefix(line)} -- {self._notes.safe(one_line(line.text))}\n")
            self._notes.flush()
            return
        if self._grep is not None and not self._grep.search(text):
            return
        if self._json:
            self._output.write(json_format.dumps(log_json(line, text), ensure_ascii=False) + "\n")
        else:
            self._output.write(f"{self._prefix(line)} {_time(line.at)}{text}\n")
        self._output.flush()

    def _prefix(self, line: LogLine) -> str:
        """Return the prefix of a line, padded to the longest, and colored after it was made safe to show."""
        parts = (part for part in (line.host, line.source, line.label) if part)
        head = self._output.safe(one_line(" ".join(parts)))
        head = f"{pad(head, self._width)} |"
        code = self._colors.get(line.host)
        return f"\x1b[{code}m{head}\x1b[0m" if code else head


def _time(at: float) -> str:
    if not at:
        return ""
    moment = datetime.fromtimestamp(at, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z "


def log_json(line: LogLine, text: str) -> dict[str, str]:
    """Return the JSON object of a line whose text was made safe to show."""
    return {"host": line.host, "source": line.source, "label": line.label, "time": _time(line.at).strip(), "text": text}
