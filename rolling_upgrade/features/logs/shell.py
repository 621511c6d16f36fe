"""The scripts that read logs on a host (containers, Nginx, the application's units), and the parser of their output.

Each script prints lines `SOURCE<tab>LABEL<tab>TEXT`; the label `note` marks a message of the script itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from rolling_upgrade.engine import jobs
from rolling_upgrade.engine.model import Application, Color
from rolling_upgrade.engine.nginx import flag
from rolling_upgrade.engine.podman import container_name
from rolling_upgrade.engine.shell import Script, direct, quote, shell_join

#: The sources besides the services; a service with such a name takes precedence.
NGINX = "nginx"
UNITS = "units"
#: Exit status of `fetch` when a source could not be read; a note in the output gives the reason.
UNREADABLE_STATUS = 45

_NGINX_FILES = ("/var/log/nginx/access.log", "/var/log/nginx/error.log")
_NOTE = "note"


@dataclass(frozen=True)
class Since:
    """The start of a query: seconds ago on the host's clock, or a time in UTC (`2026-11-23T07:00:00Z`)."""

    ago_seconds: int | None = None
    moment: str = ""


@dataclass(frozen=True)
class LogQuery:
    """The requested lines: their start, the maximum for each log (0: all), and the color, or both."""

    since: Since | None = None
    lines: int = 100
    color: Color | None = None
    both: bool = False


_COMMON = """\
note() { printf '%s\\tnote\\t%s\\n' "$1" "$2"; }
lately() { date -u -d '5 seconds ago' +%Y-%m-%dT%H:%M:%SZ; }
runs() { [ "$(podman container inspect --format '{{.State.Running}}' "$1" 2>/dev/null)" = true ]; }
marked() { sed -u "s|^|$1\\t$2\\t|"; }
marked_lines() { marked "$1" "$2" | awk 1; }
unreadable=0"""
_END = f'[ "$unreadable" = 0 ] || exit {UNREADABLE_STATUS}'


def fetch(app: Application, sources: Sequence[str], query: LogQuery) -> Script:
    """Print the logs of the sources; exits with UNREADABLE_STATUS when one could not be read."""
    parts = [_fetch_source(app, source, query) for source in sources]
    return direct(_COMMON, _since(query, *sources), *parts, _END)


def follow(app: Application, source: str, query: LogQuery) -> Script:
    """Print new lines of one source until descriptor 3 closes; then end the processes of this script.

    An empty note marks the start; the lines of `fetch` come next. A service is followed from color to color: each
    color's log is read from its start until its container stops, so that a cutover loses no line. A line may come twice
    around a note.
    """
    body = _follow_source(app, source, query)
    # Podman misses a SIGTERM while it starts.
    stop_all = "trap '' TERM\ncat <&3 >/dev/null || :\npkill -TERM -s 0 || :\nsleep 1\npkill -KILL -s 0 || :"
    return direct(_COMMON, _since(query, source), f"note {quote(source)} ''", body, stop_all, _END)


def _since(query: LogQuery, *sources: str) -> str:
    """Set `since` to a time in a format of both Podman and date; '' for the beginning. Nginx's files need none."""
    if set(sources) == {NGINX}:
        return ""
    if query.since is None:
        return "since="
    if query.since.ago_seconds is None:
        return f"since={quote(query.since.moment)}"
    return f'since=$(date -u -d "@$(($(date +%s) - {query.since.ago_seconds}))" +%Y-%m-%dT%H:%M:%SZ)'


def job_source(job: str) -> str:
    """Return the source of a job's output."""
    return f"job/{job}"


def _is_service(app: Application, source: str) -> bool:
    return source in {service.name for service in app.services}


def _fetch_source(app: Application, source: str, query: LogQuery) -> str:
    if _is_service(app, source):
        return _fetch_service(app, source, query)
    if source == NGINX:
        return _nginx(query)
    return _units(app, source, query)


def _fetch_service(app: Application, service: str, query: LogQuery) -> str:
    colors = list(Color) if query.both else [query.color] if query.color else []
    chosen = "\n".join(_fetch_container(app, service, color, query) for color in colors)
    if chosen:
        return chosen
    green, blue = (_fetch_container(app, service, color, query) for color in (Color.GREEN, Color.BLUE))
    return f"if [ -e {quote(flag(app, service))} ]; then\n{green}\nelse\n{blue}\nfi"


def _fetch_container(app: Application, service: str, color: Color, query: LogQuery) -> str:
    name = container_name(app.name, service, color)
    missing = "" if query.both else "\nunreadable=1"
    return f"""\
if podman container exists {quote(name)}; then
  {_podman_logs(query, pieces=2)} {quote(name)} 2>&1 | tail -n {_tail(query)} | marked_lines {quote(service)} {color.value}
else
  note {quote(service)} {quote(f"there is no container {name}")}{missing}
fi"""


def _podman_logs(query: LogQuery, *options: str, pieces: int = 1) -> str:
    """Print the last lines; Podman counts each of the `pieces` of a long line as a line."""
    tail = ("--tail", str(query.lines * pieces)) if query.lines else ()
    return shell_join("podman", "logs", "--timestamps", *tail, *options) + ' ${since:+--since "$since"}'


def _tail(query: LogQuery) -> str:
    return str(query.lines) if query.lines else "+1"


def _nginx(query: LogQuery, *options: str, then: str = "") -> str:
    """Print both of Nginx's files. The error log has no time zone: the label carries the host's."""
    parts = ["zone=$(date +%z)"]
    for path in _NGINX_FILES:
        label = path.rpartition("/")[2].partition(".")[0]
        parts.append(
            f"if [ -r {path} ]; then\n"
            f'{shell_join("tail", "-n", _tail(query), *options, path)} | marked {NGINX} "{label}$zone"{then}\n'
            f"else\n{_not_readable(NGINX, path, 'adm')}\nfi"
        )
    return "\n".join(parts)


def _units(app: Application, source: str, query: LogQuery, *options: str, then: str = "") -> str:
    """Print the journal of the application's user units, or of a job's. Source: journalctl(1), --user-unit takes globs."""
    named = (
        f"{jobs.unit(app.name, source.removeprefix(job_source('')))}.service" if source != UNITS else f"{app.name}-*"
    )
    lines = str(query.lines) if query.lines else "all"
    form = ("--output", "short-iso-precise", "--no-pager", "--quiet", "--utc", "--lines", lines)
    only = () if source == UNITS else ("_TRANSPORT=stdout",)  # not the events of Podman
    read = shell_join("journalctl", "--user", "--user-unit", named, *form, *options, *only)
    return (
        "if journalctl --user --quiet --lines 1 >/dev/null 2>&1; then\n"
        f'{read} ${{since:+--since "@$(date -d "$since" +%s)"}} 2>&1 | marked {quote(source)} journal{then}\n'
        f"else\n{_not_readable(source, 'the journal', 'systemd-journal')}\nfi"
    )


def _not_readable(source: str, what: str, group: str) -> str:
    remedy = f"as root on the host: usermod --append --groups {group} $(id -un), then run the same command again"
    return f'note {source} "{what} is not readable by $(id -un). Next: {remedy}"\nunreadable=1'


def _follow_source(app: Application, source: str, query: LogQuery) -> str:
    if _is_service(app, source):
        return _follow_service(app, source, query)
    if source == NGINX:
        return _nginx(query, "-F", then=" &")
    return _units(app, source, query, "--follow", then=" &")


def _follow_service(app: Application, service: str, query: LogQuery) -> str:
    """Start a reader for each color: it waits until its color is selected and runs, then reads until it stops."""
    chosen = (
        query.color.value
        if query.color
        else f"$(if [ -e {quote(flag(app, service))} ]; then echo green; else echo blue; fi)"
    )
    wants = ":" if query.both else f'[ "$1" = "{chosen}" ]'
    begins = "runs now" if query.both or query.color else "serves now"
    later = shell_join("podman", "logs", "--timestamps", "--follow")
    colors = [query.color] if query.color else list(Color)
    return f"""\
service={quote(service)} began=$(lately)
wants() {{ {wants}; }}
follow() {{
  name={quote(f"{app.name}-{service}")}-$1 from=''
  if wants "$1"; then
    if podman container exists "$name"; then
      {_podman_logs(query, "--follow")} "$name" 2>&1 | marked "$service" "$1" || :
      from=$(lately)
      note "$service" "$1 stopped"
    else note "$service" "there is no container $name; waiting for it"; fi
  fi
  while :; do
    until wants "$1" && runs "$name"; do sleep 1; done
    note "$service" "$1 {begins}"
    {later} --since "${{from:-$began}}" "$name" 2>&1 | marked "$service" "$1" || :
    from=$(lately)
    note "$service" "$1 stopped"
  done
}}
{chr(10).join(f"follow {color.value} &" for color in colors)}"""


#: Podman's time of a line: RFC 3339 with nanoseconds. Source: podman-logs(1), --timestamps.
_STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)"
_LINE = re.compile(rf"({_STAMP}) ?(.*)", re.DOTALL)
#: A line that the program wrote in pieces: Podman inserts the time of each piece.
_PIECE = re.compile(r"(?<=\S)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6,9}(?:Z|[+-]\d\d:\d\d) ")
_ACCESS = re.compile(r"\[(\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\]")
_ERROR = re.compile(r"(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) ")
_UNIT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+[+-]\d\d:?\d\d) \S+ (.*)")
_NGINX_LABEL = re.compile(r"(access|error)([+-]\d{4})")


def parse(host: str, line: str) -> LogLine:
    """Parse one line of the output of `fetch` or `follow`."""
    source, label, text = [*line.split("\t", 2), "", ""][:3]
    if label == _NOTE:
        return LogLine(host, source, "", text, note=True)
    if source == NGINX and (match := _NGINX_LABEL.fullmatch(label)):
        return LogLine(host, source, match[1], text, _nginx_time(text, match[2]))
    if label == "journal" and (source == UNITS or source.startswith(job_source(""))):
        match = _UNIT.match(text)
        return LogLine(host, source, "", match[2], _seconds(match[1])) if match else LogLine(host, source, "", text)
    match = _LINE.fullmatch(text)
    if match is None:
        return LogLine(host, source, label, text)
    return LogLine(host, source, label, _PIECE.sub("", match[2]), _seconds(match[1]))


def _nginx_time(text: str, zone: str) -> float:
    try:
        if match := _ERROR.match(text):
            return datetime.strptime(f"{match[1]} {zone}", "%Y/%m/%d %H:%M:%S %z").timestamp()
        if match := _ACCESS.search(text):
            return datetime.strptime(match[1], "%d/%b/%Y:%H:%M:%S %z").timestamp()
    except ValueError:
        pass
    return 0.0


def _seconds(stamp: str) -> float:
    """Return the Unix seconds of a time; 0 for an invalid time."""
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return 0.0


_AGO = re.compile(r"([0-9]{1,6})(s|m|h|d)")
_UNITS_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def since(text: str) -> Since:
    """Parse `90s`, `10m`, `2h`, `1d` or an ISO time; the default zone is this machine's. Raises ValueError."""
    if match := _AGO.fullmatch(text):
        return Since(int(match[1]) * _UNITS_SECONDS[match[2]])
    moment = datetime.fromisoformat(text).astimezone(timezone.utc)
    return Since(moment=f"{moment:%Y-%m-%dT%H:%M:%SZ}")


def after(line: LogLine) -> Since:
    """Return the second of a line, to resume from; its lines may be read twice."""
    return Since(moment=f"{datetime.fromtimestamp(line.at, timezone.utc):%Y-%m-%dT%H:%M:%SZ}")


@dataclass(frozen=True)
class LogLine:
    """One line of one source on one host.

    `label` is the color or the file, `at` Unix seconds, 0 for a line without a time. A `note` is a message of this
    program about the source.
    """

    host: str
    source: str
    label: str
    text: str
    at: float = 0.0
    note: bool = False
