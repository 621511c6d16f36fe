"""Reading logs on a host: containers by service and color, Nginx's files, the application's units. Text and its parser.

Each line that a script here prints is `SOURCE<tab>LABEL<tab>TEXT`; the label `note` marks a word of the script itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from fabfile.commands import journal
from fabfile.commands.nginx import flag
from fabfile.commands.podman import container_name
from fabfile.commands.shell import Script, quote, words
from fabfile.model import Application, Color
from fabfile.model.logs import LogLine

#: Sources beside the services; a service of the same name comes first.
NGINX = "nginx"
UNITS = "units"
#: Exit status of a fetch in which a source could not be read; a note in its output says why.
UNREADABLE_STATUS = 45

_NGINX_FILES = ("/var/log/nginx/access.log", "/var/log/nginx/error.log")
_NOTE = "note"


@dataclass(frozen=True)
class Since:
    """From when on: so many seconds ago on the host's clock, or a moment in UTC (`2026-11-23T07:00:00Z`)."""

    ago_seconds: int | None = None
    moment: str = ""


@dataclass(frozen=True)
class Wanted:
    """Which lines: from when on, how many at the most from each log (0: all), of which color, or of both."""

    since: Since | None = None
    lines: int = 100
    color: Color | None = None
    both: bool = False


_COMMON = """\
note() { printf '%s\\tnote\\t%s\\n' "$1" "$2"; }
lately() { date -u -d '5 seconds ago' +%Y-%m-%dT%H:%M:%SZ; }
runs() { [ "$(podman container inspect --format '{{.State.Running}}' "$1" 2>/dev/null)" = true ]; }
marked() { sed -u "s/^/$1\\t$2\\t/"; }
whole() { marked "$1" "$2" | awk 1; }
unreadable=0"""
_END = f'[ "$unreadable" = 0 ] || exit {UNREADABLE_STATUS}'


def fetch(app: Application, sources: Sequence[str], wanted: Wanted) -> Script:
    """Print what the sources have logged; exits UNREADABLE_STATUS when one could not be read."""
    parts = [_fetch_source(app, source, wanted) for source in sources]
    return journal.direct(_COMMON, _since(wanted, *sources), *parts, _END)


def follow(app: Application, source: str, wanted: Wanted) -> Script:
    """Print what one source logs from now on, until descriptor 3 ends; then nothing of it is left on the host.

    An empty note says that it has begun; the lines that `fetch` would give come next. A service is followed from color to color: each color's log is read
    from its start until its container stops, so that a cutover loses no line. A line may come twice around a note.
    """
    body = _follow_source(app, source, wanted)
    # A Podman that is just starting misses a SIGTERM.
    let_go = "trap '' TERM\ncat <&3 >/dev/null || :\npkill -TERM -s 0 || :\nsleep 1\npkill -KILL -s 0 || :"
    return journal.direct(_COMMON, _since(wanted, source), f"note {quote(source)} ''", body, let_go, _END)


def _since(wanted: Wanted, *sources: str) -> str:
    """Set `since` to a moment that Podman and date understand alike; '' for the beginning. Nginx's files need none."""
    if set(sources) == {NGINX}:
        return ""
    if wanted.since is None:
        return "since="
    if wanted.since.ago_seconds is None:
        return f"since={quote(wanted.since.moment)}"
    return f'since=$(date -u -d "@$(($(date +%s) - {wanted.since.ago_seconds}))" +%Y-%m-%dT%H:%M:%SZ)'


def _is_service(app: Application, source: str) -> bool:
    return source in {service.name for service in app.services}


def _fetch_source(app: Application, source: str, wanted: Wanted) -> str:
    if _is_service(app, source):
        return _fetch_service(app, source, wanted)
    if source == NGINX:
        return _nginx(wanted)
    return _units(app, wanted)


def _fetch_service(app: Application, service: str, wanted: Wanted) -> str:
    colors = list(Color) if wanted.both else [wanted.color] if wanted.color else []
    chosen = "\n".join(_fetch_container(app, service, color, wanted) for color in colors)
    if chosen:
        return chosen
    green, blue = (_fetch_container(app, service, color, wanted) for color in (Color.GREEN, Color.BLUE))
    return f"if [ -e {quote(flag(app, service))} ]; then\n{green}\nelse\n{blue}\nfi"


def _fetch_container(app: Application, service: str, color: Color, wanted: Wanted) -> str:
    name = container_name(app.name, service, color)
    missing = "" if wanted.both else "\nunreadable=1"
    return f"""\
if podman container exists {quote(name)}; then
  {_podman_logs(wanted, pieces=2)} {quote(name)} 2>&1 | tail -n {_tail(wanted)} | whole {quote(service)} {color.value}
else
  note {quote(service)} {quote(f"there is no container {name}")}{missing}
fi"""


def _podman_logs(wanted: Wanted, *options: str, pieces: int = 1) -> str:
    """The last lines, for lines that were written in so many pieces: Podman counts each piece as a line."""
    tail = ("--tail", str(wanted.lines * pieces)) if wanted.lines else ()
    return words("podman", "logs", "--timestamps", *tail, *options) + ' ${since:+--since "$since"}'


def _tail(wanted: Wanted) -> str:
    return str(wanted.lines) if wanted.lines else "+1"


def _nginx(wanted: Wanted, *options: str, then: str = "") -> str:
    """Both of Nginx's files. Its error log has no zone: the host's goes with the label."""
    parts = ["zone=$(date +%z)"]
    for path in _NGINX_FILES:
        label = path.rpartition("/")[2].partition(".")[0]
        parts.append(
            f"if [ -r {path} ]; then\n"
            f'{words("tail", "-n", _tail(wanted), *options, path)} | marked {NGINX} "{label}$zone"{then}\n'
            f"else\n{_not_readable(NGINX, path, 'adm')}\nfi"
        )
    return "\n".join(parts)


def _units(app: Application, wanted: Wanted, *options: str, then: str = "") -> str:
    """What the application's units of the deploy user's manager said. Source: journalctl(1), --user-unit takes globs."""
    lines = str(wanted.lines) if wanted.lines else "all"
    form = ("--output", "short-iso-precise", "--no-pager", "--quiet", "--utc", "--lines", lines)
    read = words("journalctl", "--user", "--user-unit", f"{app.name}-*", *form, *options)
    return (
        "if journalctl --user --quiet --lines 1 >/dev/null 2>&1; then\n"
        f'{read} ${{since:+--since "@$(date -d "$since" +%s)"}} 2>&1 | marked {UNITS} journal{then}\n'
        f"else\n{_not_readable(UNITS, 'the journal', 'systemd-journal')}\nfi"
    )


def _not_readable(source: str, what: str, group: str) -> str:
    remedy = f"usermod --append --groups {group} $(id -un) as root on the host, then the same command again"
    return f'note {source} "{what} is not readable by $(id -un). Next: {remedy}"\nunreadable=1'


def _follow_source(app: Application, source: str, wanted: Wanted) -> str:
    if _is_service(app, source):
        return _follow_service(app, source, wanted)
    if source == NGINX:
        return _nginx(wanted, "-F", then=" &")
    return _units(app, wanted, "--follow", then=" &")


def _follow_service(app: Application, service: str, wanted: Wanted) -> str:
    """A reader for each color: it waits until its color is wanted and runs, and reads until the container stops."""
    chosen = (
        wanted.color.value
        if wanted.color
        else f"$(if [ -e {quote(flag(app, service))} ]; then echo green; else echo blue; fi)"
    )
    wants = ":" if wanted.both else f'[ "$1" = "{chosen}" ]'
    begins = "runs now" if wanted.both or wanted.color else "serves now"
    later = words("podman", "logs", "--timestamps", "--follow")
    colors = [wanted.color] if wanted.color else list(Color)
    return f"""\
service={quote(service)} began=$(lately)
wants() {{ {wants}; }}
follow() {{
  name={quote(f"{app.name}-{service}")}-$1 from=''
  if wants "$1"; then
    if podman container exists "$name"; then
      {_podman_logs(wanted, "--follow")} "$name" 2>&1 | marked "$service" "$1" || :
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
#: A line that its program wrote in pieces: Podman puts the time of each piece in its middle.
_PIECE = re.compile(r"(?<=\S)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6,9}(?:Z|[+-]\d\d:\d\d) ")
_ACCESS = re.compile(r"\[(\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\]")
_ERROR = re.compile(r"(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) ")
_UNIT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+[+-]\d\d:?\d\d) \S+ (.*)")
_NGINX_LABEL = re.compile(r"(access|error)([+-]\d{4})")
_MOMENT = re.compile(r"([^.Z+]{19})(\.\d+)?(Z|[+-]\d\d:?\d\d)")


def parse(host: str, line: str) -> LogLine:
    """Read one line that `fetch` or `follow` printed."""
    source, label, text = [*line.split("\t", 2), "", ""][:3]
    if label == _NOTE:
        return LogLine(host, source, "", text, note=True)
    if source == NGINX and (found := _NGINX_LABEL.fullmatch(label)):
        return LogLine(host, source, found[1], text, _nginx_time(text, found[2]))
    if source == UNITS and label == "journal":
        match = _UNIT.match(text)
        return LogLine(host, source, "", match[2], _seconds(match[1])) if match else LogLine(host, source, "", text)
    match = _LINE.fullmatch(text)
    if match is None:
        return LogLine(host, source, label, text)
    return LogLine(host, source, label, _PIECE.sub("", match[2]), _seconds(match[1]))


def _nginx_time(text: str, zone: str) -> float:
    try:
        if found := _ERROR.match(text):
            return datetime.strptime(f"{found[1]} {zone}", "%Y/%m/%d %H:%M:%S %z").timestamp()
        if found := _ACCESS.search(text):
            return datetime.strptime(found[1], "%d/%b/%Y:%H:%M:%S %z").timestamp()
    except ValueError:
        pass
    return 0.0


def _seconds(stamp: str) -> float:
    """Unix seconds of a time with up to nine digits behind the point; 0 for what is no time."""
    match = _MOMENT.fullmatch(stamp)
    if match is None:
        return 0.0
    day, fraction, zone = match.groups()
    try:
        whole = datetime.strptime(f"{day} {zone.replace('Z', '+0000').replace(':', '')}", "%Y-%m-%dT%H:%M:%S %z")
    except ValueError:
        return 0.0
    return whole.timestamp() + float(fraction or 0)


_AGO = re.compile(r"([0-9]{1,6})(s|m|h|d)")
_UNITS_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def since(text: str) -> Since:
    """Read `90s`, `10m`, `2h`, `1d` or an ISO time; without a zone it is this machine's. Raises ValueError."""
    if match := _AGO.fullmatch(text):
        return Since(int(match[1]) * _UNITS_SECONDS[match[2]])
    moment = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)
    return Since(moment=f"{moment:%Y-%m-%dT%H:%M:%SZ}")


def after(line: LogLine) -> Since:
    """From the second of that line on: it comes once more, and so may others that were had."""
    return Since(moment=f"{datetime.fromtimestamp(line.at, timezone.utc):%Y-%m-%dT%H:%M:%SZ}")
