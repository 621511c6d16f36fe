"""The host's append-only history of releases: its line format, the command that appends, the parser. Runs nothing."""

from __future__ import annotations

import json

from fabfile.commands.shell import quote
from fabfile.model import Color, Outcome, Release, ServiceRelease


def history_file(home: str) -> str:
    """Where the host keeps its history."""
    return f"{home}/releases.jsonl"


def line(release: Release) -> str:
    """A release as one line of JSON, without a line end."""
    services = {
        name: {"image": run.image, "digest": run.digest, "color": run.color.value, "spec": run.spec}
        for name, run in release.services
    }
    fields = {
        "id": release.id,
        "time": release.time,
        "action": release.action,
        "outcome": release.outcome.value,
        "services": services,
        "owner": release.owner,
        "reason": release.reason,
        "seconds": round(release.seconds, 1),
    }
    return json.dumps(fields, sort_keys=True, ensure_ascii=True)


def append(home: str, release: Release) -> str:
    """Add the release to the history, once: a repeated stage does not write it twice."""
    text, path = line(release), quote(history_file(home))
    known = quote(f'"id": "{release.id}", "outcome": "{release.outcome.value}"')
    return f"grep -qsF {known} {path} || printf '%s\\n' {quote(text)} >> {path}"


def parse(text: str) -> tuple[Release, ...]:
    """Read the history, oldest first. A line that is not one of ours is left out: it decides nothing."""
    return tuple(release for row in text.splitlines() if (release := _release(row)) is not None)


def _release(row: str) -> Release | None:
    try:
        fields = json.loads(row)
        services = tuple(
            (name, ServiceRelease(run["image"], run["digest"], Color(run["color"]), run.get("spec", "")))
            for name, run in fields["services"].items()
        )
        return Release(
            id=fields["id"],
            time=fields["time"],
            action=fields["action"],
            outcome=Outcome(fields["outcome"]),
            services=services,
            owner=fields.get("owner", ""),
            reason=fields.get("reason", ""),
            seconds=float(fields.get("seconds", 0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
