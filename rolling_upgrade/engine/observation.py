"""Observe a host in one round trip: the script that prints its state, and the parser of the output.

The state includes keyed hashes of the values in each environment file, so that the plan names the changed keys without
hashes on the host. Each process draws a random key; the hashes are useless to any other process.
"""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Iterable, Mapping

from rolling_upgrade.engine import accessory, history, jobs, lock_file, maintenance, request, sqlite, untrusted
from rolling_upgrade.engine.host import Answer, Host, malformed_answer
from rolling_upgrade.engine.journal import UNSEEN
from rolling_upgrade.engine.model import (
    AccessoryContainer,
    Application,
    Color,
    Container,
    HostResult,
    HostState,
    Image,
    ProbeResult,
    Service,
    UnseenRun,
)
from rolling_upgrade.engine.nginx import request_log, site_file, site_helper
from rolling_upgrade.engine.paths import ID_PATTERN, backup_directory
from rolling_upgrade.engine.podman import LABEL, MULTILINE, SECRETS, accessory_container
from rolling_upgrade.engine.request import Request
from rolling_upgrade.engine.shell import direct, quote, shell_join
from rolling_upgrade.engine.site.client import rules_file
from rolling_upgrade.engine.site.text import HASH_PATH
from rolling_upgrade.engine.untrusted import Malformed

OBSERVE_SECONDS = 60.0
SECTION = "@@"
#: A shell function that prints `NAME=VALUE`, the value in one line. It starts no process: an observation has 40 facts.
FACT = """\
newline='
'
fact() {
  line=$2
  while :; do
    case $line in *"$newline"*) line="${line%%"$newline"*} ${line#*"$newline"}" ;; *) break ;; esac
  done
  printf '%s=%s\\n' "$1" "$line"
}"""
_FIELDS = (
    "name", "status", "running", "started", "restarts", "exit", "image_id",
    "app", "service", "color", "release", "image", "digest", "spec", "port", "accessory",
)  # fmt: skip

#: The sections of every observation; early versions have no site.
_PARTS = frozenset({"facts", "active", "containers", "listening", "releases", "lock", "probes", "end"})
#: The row limits of sections whose processing takes more than linear time.
_MOST_ROWS = 1000
_COUNTED = ("facts", "active", "containers", "probes", "accessories")
#: The limit of the description and of the last event of an unseen run.
_UNSEEN_BYTES = 16 << 10
#: The longest time of a probe; curl gives up far earlier.
_LONGEST_ANSWER_SECONDS = 86_400


def observe(host: Host, app: Application, *, probe: bool = True) -> HostState:
    """Observe one host. Raises HostUnreachable, also for an incomplete answer."""
    answer = host.run(direct(shell_text(app, probe=probe)), timeout_seconds=OBSERVE_SECONDS)
    return from_answer(app, host.name, answer)


def from_answer(app: Application, host: str, answer: Answer) -> HostState:
    """The state in the answer of a script that contains `shell_text`. Raises HostUnreachable if it is incomplete."""
    try:
        return parse(app.name, host, answer.output)
    except Malformed as error:
        raise malformed_answer(host, f"{error}: {answer.output_tail}") from error


def shell_text(app: Application, *, probe: bool = True, version: bool = False) -> str:
    """Print facts, flags, containers, ports, history, lock, live site, and, with `probe`, the application's answers.

    Podman lists the containers while the other parts are printed, because it takes about as long as all of them. Only
    `version` adds its version, because asking for it costs as much as listing the containers.
    """
    parts = (
        _facts(app),
        "fact podman \"$(podman --version 2>/dev/null | awk '{ print $3 }')\"" if version else "",
        section("site"),
        f"cat {quote(site_file(app.name))} 2>/dev/null || :",
        section("active"),
        f"(cd {quote(app.home + '/live')} 2>/dev/null && ls) || :",
        section("listening"),
        "ss -Hltn | awk '{ print $4 }'",
        section("releases"),
        history.read_newest(app.home),
        section("lock"),
        f"cat {quote(app.home + '/lock/held')} 2>/dev/null || :",
        section("environments"),
        "printf '%s\\n' \"$python\"",
        section("probes"),
        *(_probe(name, asked) for name, asked in probes(app) if probe),
        section("accessories") if probe else "",
        accessory.check_all(app) if probe else "",
        section("containers"),
        "cat <&4",
    )
    return "\n".join(
        (
            FACT,
            f"{{\n{containers(app)}\n}} | {{\nexec 4<&0 </dev/null",
            *(part for part in parts if part),
            "}",
            section("end"),
            "",
        )
    )


def section(name: str) -> str:
    """The line that begins a section of the answer."""
    return f"echo {SECTION}{name}"


def _facts(app: Application) -> str:
    home, helper = quote(app.home), quote(site_helper(app.name))
    database = quote(app.database or "/nonexistent")
    backups = quote(backup_directory(app))
    url = quote(f"http://127.0.0.1:{app.http_services[0].service_port}{HASH_PATH}") if app.has_site else ""
    return f"""\
{section("facts")}
has() {{ if command -v "$1" >/dev/null 2>&1; then echo yes; else echo no; fi; }}
fact now "$(date +%s)"
fact user "$(id -un)"
fact hostname "$(uname -n)"
fact os "$(. /etc/os-release && echo "$ID $VERSION_ID")"
for tool in podman nginx curl ss flock skopeo pgrep rsync pg_dump; do fact "has_$tool" "$(has "$tool")"; done
python=$({ask_python(app.home)}
)
fact has_python3 "$(case $python in "{sqlite.RECENT}"*) echo yes ;; *) echo no ;; esac)"
fact has_sqlite3 "$(case $python in *"{sqlite.USABLE}"*) echo yes ;; *) echo no ;; esac)"
fact linger "$(loginctl show-user "$(id -un)" --property=Linger --value 2>/dev/null || echo no)"
fact home "$(if [ -d {home}/live ] && [ -w {home}/live ] && [ -w {home} ]; then echo yes; else echo no; fi)"
fact helper "$(if [ -x {helper} ] && sudo -n -l {helper} install >/dev/null 2>&1; then echo yes; else echo no; fi)"
fact helper_sum "$(sha256sum < {helper} 2>/dev/null | cut -d ' ' -f 1)"
fact site_rules "$(head -c 65536 {quote(rules_file(app.name))} 2>/dev/null || :)"
fact request_log "$(if [ -d {quote(request_log(app.name).rpartition("/")[0])} ]; then echo yes; else echo no; fi)"
fact nginx_active "$(systemctl is-active nginx 2>/dev/null || :)"
path={home}/live closed=''
while [ "$path" != / ]; do
  case "$(stat -c %a "$path" 2>/dev/null)" in *[1357]) ;; *) closed=$path ;; esac
  path=$(dirname "$path")
done
fact closed "$closed"
fact free_kib "$(df -Pk "$HOME" | awk 'NR == 2 {{ print $4 }}')"
fact total_kib "$(df -Pk "$HOME" | awk 'NR == 2 {{ print $2 }}')"
fact free_inodes "$(df -Pi "$HOME" | awk 'NR == 2 {{ print $4 }}')"
directory={backups}
while [ ! -d "$directory" ]; do directory=$(dirname "$directory"); done
fact backup_free_kib "$(df -Pk "$directory" | awk 'NR == 2 {{ print $4 }}')"
fact database_kib "$(if [ -f {database} ]; then du -k {database} | cut -f 1; else echo 0; fi)"
{last_backup(app)}
fact maintenance "$({maintenance.origin(app)})"
{accessory.supposed(app)}
fact executing "$({lock_file.executing(app.home)})"
{jobs.facts(app)}
{_unseen(app)}
fact site "$({f"curl -fs --max-time 10 {url} || " if url else ""}:)\""""


def last_backup(app: Application) -> str:
    """Print the fact `last_backup`: when the newest backup was complete, in Unix seconds, and its name."""
    return f"""\
last=''
for backup in {quote(f"{backup_directory(app)}/{app.name}-")}{ID_PATTERN}; do
  if [ -f "$backup/manifest.json" ]; then last=$backup; fi
done
fact last_backup "$(if [ -n "$last" ]; then echo "$(stat -c %Y "$last/manifest.json") $(basename "$last")"; fi)\""""


def _unseen(app: Application) -> str:
    """Print the facts `unseen` and `unseen_end` if no workstation has seen the end of the newest run.

    They are the description in its journal, and the time and the last event of the run.
    """
    return f"""\
newest=''
for run in {quote(f"{app.home}/journal/")}{ID_PATTERN}; do newest=$run; done
if [ -f "$newest/{UNSEEN}" ]; then
  fact unseen "$(head -c {_UNSEEN_BYTES} "$newest/{UNSEEN}")"
  fact unseen_end "$(stat -c %Y "$newest/events.jsonl") $(tail -n 1 "$newest/events.jsonl" | head -c {_UNSEEN_BYTES})"
fi"""


def unseen_run(state: HostState) -> UnseenRun | None:
    """Return the newest run if it has ended and no workstation has seen that."""
    at, _, event = state.fact("unseen_end").partition(" ")
    try:
        found, end = untrusted.json_object(state.fact("unseen")), untrusted.json_object(event)["end"]
        title, owner = (untrusted.string(found[name]) for name in ("title", "owner"))
        return UnseenRun(title, owner, untrusted.integer(at, maximum=untrusted.LATEST), HostResult(end["result"]))
    except (Malformed, ValueError, TypeError, KeyError):
        return None


def containers(app: Application) -> str:
    """Print one line of fields for each container of this application."""
    label = '{{{{index .Config.Labels "{}"}}}}'
    columns = [
        "{{.Name}}", "{{.State.Status}}", "{{.State.Running}}", "{{.State.StartedAt}}", "{{.RestartCount}}",
        "{{.State.ExitCode}}", "{{.Image}}",
    ]  # fmt: skip
    columns += [label.format(f"{LABEL}.{name}") for name in _FIELDS[len(columns) :]]
    ids = shell_join("podman", "ps", "--all", "--quiet", "--filter", f"name=^{app.name}-")
    inspect = shell_join("podman", "container", "inspect", "--format", "\t".join(columns))
    return f'ids=$({ids} 2>/dev/null) || :\nif [ -n "$ids" ]; then\n  # shellcheck disable=SC2086\n  {inspect} $ids || :\nfi'


def probes(app: Application) -> list[tuple[str, Request]]:
    """The name of each request that shows whether the application is healthy, and the request."""
    found = [(service.name, request.to_service(app, service, service.service_port)) for service in app.http_services]
    if app.full_chain:
        found.append(("full chain", request.of_chain(app, app.full_chain)))
    return [*found, ("public", request.to_site(app))] if app.has_site else found


def _probe(name: str, asked: Request) -> str:
    form = f"%{{http_code}}\\t%{{time_total}}\\t%header{{{request.SERVED_BY}}}\\t%header{{location}}"
    curl = request.status(asked, request.VISITOR_SECONDS, form)
    return f"answer=$({curl}) || :\nprintf '%s\\t%s\\t%s\\n' {quote(name)} {quote(asked.url)} \"$answer\""


def sections(text: str) -> dict[str, list[str]]:
    """The lines of each section of an answer, by its name. Raises Malformed for too many."""
    found: dict[str, list[str]] = {}
    current = ""
    for line in untrusted.lines(text):
        if line.startswith(SECTION):
            current = line.removeprefix(SECTION)
            found[current] = []
        elif current:
            found[current].append(line)
    return found


def parse(app: str, host: str, text: str) -> HostState:
    """Parse the output of `shell_text` for the application with that name; containers of other applications count as foreign.

    Raises Malformed if the text is incomplete or comes from another program.
    """
    parts = sections(text)
    if not parts.keys() >= _PARTS:
        raise Malformed(f"the observation of {host} is truncated")
    for part in _COUNTED:
        if len(parts.get(part, ())) > _MOST_ROWS:
            raise Malformed(f"the observation of {host} has more than {_MOST_ROWS} rows of {part}")
    facts = tuple((key, value.strip()) for key, _, value in (row.partition("=") for row in parts["facts"]))
    found = dict(facts)
    ours, foreign = _containers(app, parts["containers"])
    return HostState(
        host=host,
        now=untrusted.integer(found.get("now") or "0", maximum=untrusted.LATEST),
        facts=facts,
        active=tuple((name.removesuffix(".green"), Color.GREEN) for name in parts["active"] if name.endswith(".green")),
        containers=tuple(container for row in ours if (container := _container(row)) is not None),
        accessories=tuple(kept for row in ours if (kept := _accessory(row)) is not None),
        accessory_checks=accessory.parse_checks(parts.get("accessories", ())),
        foreign=foreign,
        listening=tuple(sorted({port for row in parts["listening"] if (port := _port(row.rpartition(":")[2]))})),
        releases=history.parse("\n".join(parts["releases"])),
        lock=lock_file.parse("\n".join(parts["lock"])),
        live_site_hash=found.get("site", ""),
        site="\n".join(parts["site"]) + "\n" if parts.get("site") else "",
        probes=tuple(result for row in parts["probes"] if (result := _probe_result(row, found)) is not None),
        environments=parse_environment_marks(parts.get("environments", ())),
    )


def _containers(app: str, lines: list[str]) -> tuple[list[list[str]], tuple[str, ...]]:
    """The rows of this application's containers, and the names of others. Early versions know no accessories."""
    ours, foreign = [], []
    for row in (line.split("\t") for line in lines):
        if len(row) == len(_FIELDS) - 1:
            row.append("")
        if len(row) == len(_FIELDS) and row[7] == app:
            ours.append(row)
        else:
            foreign.append(row[0])
    return ours, tuple(foreign)


def _port(text: str) -> int:
    """Parse a port; 0 for invalid text."""
    return untrusted.integer(text, maximum=65_535, default=0)


def _container(row: list[str]) -> Container | None:
    fields = dict(zip(_FIELDS, row, strict=True))
    try:
        color, image = Color(fields["color"]), Image.parse(fields["image"])
    except ValueError:
        return None
    return Container(
        name=fields["name"],
        service=fields["service"],
        color=color,
        running=fields["running"] == "true",
        status=fields["status"],
        started_at=fields["started"],
        restarts=untrusted.integer(fields["restarts"]),
        exit_code=untrusted.integer(fields["exit"], minimum=-(2**31)),
        image=image.with_digest(fields["digest"]),
        image_id=fields["image_id"],
        release=fields["release"],
        spec=fields["spec"],
        service_port=_port(fields["port"]),
    )


def _accessory(row: list[str]) -> AccessoryContainer | None:
    fields = dict(zip(_FIELDS, row, strict=True))
    name = fields["accessory"]
    if not name or fields["name"] != accessory_container(fields["app"], name):
        return None
    try:
        image = Image.parse(fields["image"])
    except ValueError:
        return None
    return AccessoryContainer(
        accessory=name,
        name=fields["name"],
        running=fields["running"] == "true",
        status=fields["status"],
        started_at=fields["started"],
        restarts=untrusted.integer(fields["restarts"]),
        exit_code=untrusted.integer(fields["exit"], minimum=-(2**31)),
        image=image.with_digest(fields["digest"]),
        image_id=fields["image_id"],
        spec=fields["spec"],
    )


def _probe_result(row: str, facts: Mapping[str, str]) -> ProbeResult | None:
    columns = row.split("\t")
    if len(columns) < 4:
        return None
    name, url, code, seconds = columns[:4]
    served, location = (*columns[4:6], "", "")[:2]
    on_purpose = code == "503" and bool(facts.get("maintenance"))
    ok = code.startswith("2") or (name == "public" and (code[:1] in {"2", "3", "4"} or on_purpose))
    milliseconds = round(untrusted.number(seconds, maximum=_LONGEST_ANSWER_SECONDS) * 1000)
    return ProbeResult(name, url, ok, request.described(code, served, location), milliseconds)


#: The key of the hashes of environment values; it exists only as long as this process.
_KEY = os.urandom(32)
#: The number of directories that the host reads, newest first, and the bytes of one environment file.
_MOST, _BYTES = 50, 1_048_576
_ROW = re.compile(r"([a-z][a-z0-9-]{0,30}-[0-9a-f]{4,32})((?: [A-Za-z_][A-Za-z0-9_]{0,255}:[0-9a-f]{16})*)")
_PROGRAM = f"""\
{sqlite.PRINT_USABLE}\
import glob, hmac, os, sys
key = bytes.fromhex("{_KEY.hex()}")
paths = sorted(glob.glob(glob.escape(sys.argv[1]) + "/config/*/env"), key=os.path.getmtime, reverse=True)
for path in paths[:{_MOST}]:
    with open(path, "rb") as file:
        lines = file.read({_BYTES}).splitlines()
    folder = glob.escape(os.path.dirname(path))
    for name in sorted(glob.glob(folder + "/{MULTILINE}/*") + glob.glob(folder + "/{SECRETS}/*"))[:{_MOST}]:
        with open(name, "rb") as file:
            lines.append(os.path.basename(name).encode() + b"=" + file.read({_BYTES}))
    marks = (line.split(b"=")[0].decode("ascii", "replace") + ":" + hmac.digest(key, line, "sha256").hex()[:16] for line in lines)
    print(path.split("/")[-2], *marks)
"""


def environment_marks(service: Service) -> dict[str, str]:
    """Return a keyed hash for each key of the service's environment; equal values have equal hashes."""
    secrets = ((secret.name, secret.value) for secret in service.secret_files)
    values = (*service.env, *secrets)
    return {key: hmac.digest(_KEY, f"{key}={value}".encode(), "sha256").hex()[:16] for key, value in values}


def ask_python(home: str) -> str:
    """Print `sqlite.RECENT` and `sqlite.USABLE` if they hold, and `DIRECTORY KEY:MARK…` for each environment file.

    It prints nothing without Python.

    One process answers both, because the start of Python costs more than all other facts.
    """
    return f"python3 -I - {quote(home)} 2>/dev/null <<'END-OF-PYTHON' || :\n{_PROGRAM}END-OF-PYTHON"


def parse_environment_marks(rows: Iterable[str]) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """The marks by directory, from the output of `ask_python`; other lines are ignored."""
    marked = []
    for row in rows:
        if match := _ROW.fullmatch(row):
            pairs = (pair.partition(":") for pair in match[2].split())
            marked.append((match[1], tuple((key, mark) for key, _, mark in pairs)))
    return tuple(marked)
