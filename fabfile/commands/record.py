"""The host's append-only history of releases: its line format, the command that appends, the parser, the proof.

Each line holds the SHA-256 of the line before it, and `releases.head` that of the last one: a line that was changed or
removed is found. It runs nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from fabfile.commands.shell import quote, sha256
from fabfile.model import Color, Outcome, Release, ServiceRelease

#: What the host itself adds to a line: whom it saw, and the hash of the line before.
_ADDED = ("key", "client", "previous")
_TEXTS = ("owner", "reason", "target", "left", "workstation", "revision")


@dataclass(frozen=True)
class Fault:
    """One place at which a history is not what was written: the line's number, from 1, and what is wrong."""

    line: int
    problem: str


def history_file(home: str) -> str:
    """Where the host keeps its history."""
    return f"{home}/releases.jsonl"


def head_file(home: str) -> str:
    """Where the host keeps the hash of its history's last line."""
    return f"{home}/releases.head"


def line(release: Release) -> str:
    """A release as one line of JSON, without a line end and without what the host adds."""
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
    fields = {
        "id": release.id,
        "outcome": release.outcome.value,
        "action": release.action,
        "time": release.time,
        "seconds": round(release.seconds, 1),
        "services": services,
        **{name: getattr(release, name) for name in _TEXTS},
    }
    return json.dumps(fields, ensure_ascii=True)


def append(home: str, release: Release) -> str:
    """Add the release to the history, once: a repeated stage does not write it twice.

    The host adds the key and the address of the lock's holder as it saw them, and the hash of the line before. A line
    that a power cut left half is ended first; it stays, and counts as a fault.
    """
    text, path, head = line(release), quote(history_file(home)), quote(head_file(home))
    known = quote(text[: text.index(', "action"')].lstrip("{"))
    held = quote(f"{home}/lock/held")
    return f"""\
if ! grep -qsF {known} {path}; then
  if [ -s {path} ] && [ -n "$(tail -c 1 {path})" ]; then echo >> {path}; fi
  key=$(sed -n 's/^key=//p' {held} 2>/dev/null | tr -cd 'A-Za-z0-9:+/=') || :
  client=$(sed -n 's/^client=//p' {held} 2>/dev/null | tr -cd 'A-Za-z0-9.:%') || :
  previous=''
  if [ -s {path} ]; then previous=$(tail -n 1 {path} | tr -d '\n' | sha256sum | cut -c 1-64); fi
  record=$(printf '%s, "key": "%s", "client": "%s", "previous": "%s"}}' {quote(text[:-1])} "$key" "$client" "$previous")
  printf '%s\n' "$record" >> {path}
  printf '%s\n' "$(printf %s "$record" | sha256sum | cut -c 1-64)" > {head}.new
  mv -f {head}.new {head}
fi"""


def read(home: str) -> str:
    """Print the whole history, its head last, after a line of its own."""
    return (
        f"cat {quote(history_file(home))} 2>/dev/null || :\necho @@head\ncat {quote(head_file(home))} 2>/dev/null || :"
    )


def split(output: str) -> tuple[str, str]:
    """The history and the head from what `read` printed. Raises ValueError when it was cut short."""
    history, mark, head = output.rpartition("@@head\n")
    if not mark:
        raise ValueError("the history was cut short")
    return history, head.strip()


def parse(text: str) -> tuple[Release, ...]:
    """Read the history, oldest first. A line that is not one of ours is left out: it decides nothing."""
    return tuple(release for row in text.splitlines() if (release := _release(row)) is not None)


def verify(text: str, head: str) -> tuple[Fault, ...]:
    """Every place at which the chain of hashes is broken; nothing means that the history is whole.

    The head may be one line behind: a host that lost power between writing the line and the head.
    """
    faults: list[Fault] = []
    previous = ""
    hashes = [""]
    rows = text.split("\n")
    rows = rows[:-1] if rows[-1] == "" else rows
    for number, row in enumerate(rows, 1):
        said = _previous(row)
        if said is None:
            faults.append(Fault(number, "this is no line of the history"))
        elif said != previous and number == 1:
            faults.append(Fault(number, "the line before it was removed"))
        elif said != previous:
            faults.append(Fault(number, "the line before it was changed or removed, or this one was changed"))
        previous = sha256(row.encode())
        hashes.append(previous)
    if head not in hashes[-2:]:
        faults.append(Fault(len(rows), "the last line was changed, or lines after it were removed"))
    return tuple(faults)


def _previous(row: str) -> str | None:
    try:
        said = json.loads(row)["previous"]
    except (ValueError, KeyError, TypeError):
        return None
    return said if isinstance(said, str) else None


def _release(row: str) -> Release | None:
    try:
        fields = json.loads(row)
        services = tuple((name, _service(run)) for name, run in fields["services"].items())
        return Release(
            id=fields["id"],
            time=fields["time"],
            action=fields["action"],
            outcome=Outcome(fields["outcome"]),
            services=services,
            seconds=float(fields.get("seconds", 0)),
            **{name: str(fields.get(name, "")) for name in (*_TEXTS, *_ADDED[:2])},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _service(run: dict[str, str]) -> ServiceRelease:
    return ServiceRelease(
        run["image"], run["digest"], Color(run["color"]), run.get("spec", ""), run.get("revision", "")
    )
