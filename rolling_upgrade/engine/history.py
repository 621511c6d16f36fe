"""The append-only history of releases on a host, and the stored definition of each release.

Each line of `releases.jsonl` holds the SHA-256 of the line before it, and `releases.head` holds the SHA-256 of the last
line, so that a changed or removed line is detected. `config/RUN.json` holds the application that a rollback restores.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.model import Application, Color, Image, Outcome, Recorded, Release, ServiceRelease
from rolling_upgrade.engine.podman import config_directory, spec_hash
from rolling_upgrade.engine.serialization import from_plain, to_plain
from rolling_upgrade.engine.shell import Script, quote, sha256, shell_join, write_file
from rolling_upgrade.engine.untrusted import Malformed, string

#: The fields that the host adds to a line: the operator as it saw them, and the hash of the previous line.
_ADDED = ("key", "client", "previous")
#: The limits of a history: its number of lines, and the length of a line.
_MOST_LINES, _LONGEST_LINE = 200_000, 64 << 10
_TEXTS = ("owner", "reason", "target", "left", "workstation", "revision")

#: Suggested commands contain ids, so an id is one shell word that does not start like an option.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_IDS = ("target", "left")


@dataclass(frozen=True)
class Fault:
    """One broken line of a history: its number, from 1, and the problem."""

    line: int
    problem: str


def history_file(home: str) -> str:
    """The history of releases on the host."""
    return f"{home}/releases.jsonl"


def head_file(home: str) -> str:
    """The file on the host with the hash of the history's last line."""
    return f"{home}/releases.head"


def _fixed(release: Release) -> tuple[str, str]:
    """The parts of a line around its outcome that are known when the plan is made."""
    services = {
        name: {
            "image": run.image,
            "digest": run.digest,
            "color": run.color.value,
            "spec": run.spec,
            "revision": run.revision,
        }
        for name, run in release.services
    }
    texts = {name: getattr(release, name) for name in _TEXTS if name != "reason"}
    rest = json.dumps({"action": release.action, "time": release.time, "services": services, **texts})
    return f'{{"id": {json.dumps(release.id)}, "outcome": "', rest[1:-1]


def append(home: str, release: Release) -> str:
    """Append the release to the history once, even if the step is repeated.

    `ending` before it overrides the release's outcome, reason and seconds. The host adds the SSH key and address of the
    lock's holder, and the hash of the previous line. A line cut short by a power loss is terminated first; it stays,
    and counts as a fault.
    """
    path, head, held = quote(history_file(home)), quote(head_file(home)), quote(f"{home}/lock/held")
    start, rest = _fixed(release)
    shape = '%s%s", %s, "seconds": %s, "reason": %s, "key": "%s", "client": "%s", "previous": "%s"}'
    return f"""\
outcome=${{run_outcome:-{release.outcome.value}}} seconds=${{run_seconds:-{round(release.seconds, 1)}}}
reason=${{run_reason:-}}
if [ -z "$reason" ]; then reason={quote(json.dumps(release.reason))}; fi
if ! grep -qsF {quote(start.lstrip("{"))}"$outcome"'"' {path}; then
  if [ -s {path} ] && [ -n "$(tail -c 1 {path})" ]; then echo >> {path}; fi
  key=$(sed -n 's/^key=//p' {held} 2>/dev/null | tr -cd 'A-Za-z0-9:+/=') || :
  client=$(sed -n 's/^client=//p' {held} 2>/dev/null | tr -cd 'A-Za-z0-9.:%') || :
  previous=''
  if [ -s {path} ]; then previous=$(tail -n 1 {path} | tr -d '\n' | sha256sum | cut -c 1-64); fi
  record=$(printf {quote(shape)} {quote(start)} "$outcome" {quote(rest)} "$seconds" "$reason" "$key" "$client" "$previous")
  printf '%s\n' "$record" >> {path}
  printf '%s\n' "$(printf %s "$record" | sha256sum | cut -c 1-64)" > {head}.new
  mv -f {head}.new {head}
fi"""


def ending(outcome: Outcome, reason: str, seconds: float) -> str:
    """Set the outcome, reason and duration of the run for the next `append`."""
    values = {"run_outcome": outcome.value, "run_reason": json.dumps(reason), "run_seconds": round(seconds, 1)}
    return "\n".join(f"{name}={quote(value)}" for name, value in values.items())


def read(home: str) -> str:
    """Print the whole history, then a separator and its head."""
    return (
        f"cat {quote(history_file(home))} 2>/dev/null || :\necho @@head\ncat {quote(head_file(home))} 2>/dev/null || :"
    )


def read_newest(home: str) -> str:
    """Print the newest lines of the history."""
    return f"tail -n 100 {quote(history_file(home))} 2>/dev/null || :"


def split(output: str) -> tuple[str, str]:
    """The history and the head from the output of `read`. Raises Malformed if it was cut short."""
    history, mark, head = output.rpartition("@@head\n")
    if not mark:
        raise Malformed("the history is truncated")
    return history, head.strip()


def parse(text: str) -> tuple[Release, ...]:
    """Read the history, oldest first, and skip every line that is not a valid release."""
    return tuple(release for row in untrusted.lines(text, _MOST_LINES) if (release := _release(row)) is not None)


def verify(text: str, head: str) -> tuple[Fault, ...]:
    """Find every break in the chain of hashes; an empty result means that the history is intact.

    The head may lag by one line: the host may have lost power between the two writes.
    """
    faults: list[Fault] = []
    previous = ""
    hashes = [""]
    if text.count("\n") > _MOST_LINES:
        raise Malformed(f"a history of more than {_MOST_LINES} lines")
    rows = text.split("\n")
    rows = rows[:-1] if rows[-1] == "" else rows
    for number, row in enumerate(rows, 1):
        stated = _previous(row)
        if stated is None:
            faults.append(Fault(number, "this is not a valid line"))
        elif stated != previous and number == 1:
            faults.append(Fault(number, "the line before it was removed"))
        elif stated != previous:
            faults.append(Fault(number, "the line before it was changed or removed, or this one was changed"))
        previous = sha256(row.encode(errors="surrogatepass"))
        hashes.append(previous)
    if head not in hashes[-2:]:
        faults.append(Fault(len(rows), "the last line was changed, or lines after it were removed"))
    return tuple(faults)


def _previous(row: str) -> str | None:
    try:
        stated = untrusted.json_object(row, max_bytes=_LONGEST_LINE, surrogates=True)["previous"]
    except (ValueError, KeyError, TypeError):
        return None
    return stated if isinstance(stated, str) else None


def _release(row: str) -> Release | None:
    try:
        # A reason may contain bytes that are not UTF-8, as the operator's shell passed them on.
        fields = untrusted.json_object(row, max_bytes=_LONGEST_LINE, surrogates=True)
        services = tuple((name, _service(run)) for name, run in fields["services"].items())
        return Release(
            id=_id(fields["id"]),
            time=string(fields["time"]),
            action=string(fields["action"]),
            outcome=Outcome(fields["outcome"]),
            services=services,
            seconds=untrusted.number(fields.get("seconds", 0)),
            **{name: _id(fields[name]) for name in _IDS if fields.get(name, "") != ""},
            **{
                name: string(fields.get(name, ""), _LONGEST_LINE) for name in (*_TEXTS, *_ADDED[:2]) if name not in _IDS
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _id(value: object) -> str:
    """The id of a release or a backup, of this version or an earlier one. Raises Malformed."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise Malformed(f"{untrusted.line(repr(value)[:200], 80)} is not a valid id")
    return value


def _service(run: dict[str, str]) -> ServiceRelease:
    """Raises Malformed, or ValueError for a text that is not an image: retention reads its repository."""
    image = string(run["image"])
    Image.parse(image)
    return ServiceRelease(
        image,
        string(run["digest"]),
        Color(run["color"]),
        string(run.get("spec", "")),
        string(run.get("revision", "")),
    )


def live_release(releases: Iterable[Release]) -> str:
    """The id of the release whose definition the host runs; '' before its first deploy.

    Recoveries and restores keep the release, and a rollback returns to its target.
    """
    for release in reversed(tuple(releases)):
        if release.good and release.action in {"deploy", "rollback"}:
            return release.target if release.action == "rollback" else release.id
    return ""


def definition_file(home: str, release: str) -> str:
    """The file on the host with the definition of a release."""
    return f"{home}/config/{release}.json"


def write_definition(home: str, release: str, app: Application) -> Script:
    """Store the definition of a release."""
    return write_file(definition_file(home, release), dump_definition(app))


def dump_definition(app: Application) -> str:
    """The application as JSON, without secrets: fields hidden from repr() are left out."""
    services = tuple(
        dataclasses.replace(service, recorded=Recorded(spec_hash(app.name, service))) for service in app.services
    )
    return json.dumps(to_plain(dataclasses.replace(app, services=services)), indent=1) + "\n"


def parse_definition(text: str, home: str) -> Application:
    """Read the output of `dump_definition` for this home; missing fields get their defaults. Raises Malformed."""
    try:
        app: Application = from_plain(Application, untrusted.json_object(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Malformed(f"this is not a release definition ({untrusted.line(error)})") from error
    if not all(service.recorded for service in app.services) or app.home != home:
        raise Malformed("this is not a release definition")
    return app


def read_definition(home: str, release: str) -> str:
    """Print the definition of a release; nothing if the host has none."""
    return f"cat {quote(definition_file(home, release))} 2>/dev/null || :"


def available(app: Application) -> str:
    """Print `SERVICE env yes|no` and `SERVICE image yes|registry|no` for everything the release needs to run again."""
    parts = []
    for service in app.services:
        env_file = quote(f"{config_directory(app, service)}/env")
        parts.append(
            f"if [ -f {env_file} ]; then echo {service.name} env yes; else echo {service.name} env no; fi\n"
            f"if {shell_join('podman', 'image', 'exists', service.image.pinned)}; then echo {service.name} image yes\n"
            f"elif {_in_registry(service.image)}; then echo {service.name} image registry\n"
            f"else echo {service.name} image no; fi"
        )
    return "\n".join(parts)


def _in_registry(image: Image) -> str:
    command = shell_join("timeout", 20, "skopeo", "inspect", "--raw", f"docker://{image.pinned}")
    return f"{command} >/dev/null 2>&1"
