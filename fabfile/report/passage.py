"""The report of one run: what it changed on each host, how it passed, and the runs before it, as plain values.

Lines, JSON and the page all show these values. It reads nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fabfile.model import Outcome, Release, Stage
from fabfile.report.history import Told
from fabfile.report.requests import Requests
from fabfile.report.text import short_digest

#: How many runs the chart of durations and outcomes shows.
RUNS_SHOWN = 30
_WORST = (Outcome.UNDO_FAILED, Outcome.UNDONE, Outcome.GOOD)
_MOVES = frozenset({"deploy", "rollback"})


@dataclass(frozen=True)
class Passage:
    """One run over an environment: the hosts' histories, its stages by host, and why a host gave no answer."""

    environment: str
    run: str
    told: Mapping[str, Told]
    stages: Mapping[str, Sequence[Stage]]
    lost: Mapping[str, str]
    requests: Requests | None = None


def newest(told: Iterable[Told]) -> str:
    """The id of the newest run in any of these histories; '' without one. Ids sort by time."""
    return max((release.id for one in told for release in one.releases), default="")


def told_of(passage: Passage) -> dict[str, Any]:
    """Everything that the report says, as values that JSON carries."""
    hosts = [
        _host(name, one, entry, passage)
        for name, one in passage.told.items()
        if (entry := _entry(one, passage.run)) is not None
    ]
    entries = [entry for one in passage.told.values() if (entry := _entry(one, passage.run)) is not None]
    first = min(entries, key=lambda entry: entry.time)
    return {
        "environment": passage.environment,
        "run": passage.run,
        "action": first.action,
        "outcome": _worst(entries).value,
        "time": first.time,
        "seconds": max(entry.seconds for entry in entries),
        **_who(first, passage),
        "reason": next((entry.reason for entry in entries if entry.reason), ""),
        "target": first.target,
        "undo": _undo(first, _worst(entries), passage),
        "hosts": hosts,
        "not_in_it": [name for name, one in passage.told.items() if _entry(one, passage.run) is None],
        "lost": [{"host": name, "why": why} for name, why in passage.lost.items()],
        "runs": _runs(passage.told.values()),
        "requests": _requests(passage),
    }


def _who(entry: Release, passage: Passage) -> dict[str, str]:
    names = next((one.names for one in passage.told.values()), {})
    return {
        "owner": entry.owner,
        "workstation": entry.workstation,
        "client": entry.client,
        "key": entry.key,
        "key_of": names.get(entry.key, ""),
        "revision": entry.revision,
    }


def _entry(told: Told, run: str) -> Release | None:
    """How the run ended there: a good end that was undone afterwards counts as undone."""
    return next((release for release in reversed(told.releases) if release.id == run), None)


def _worst(entries: Iterable[Release]) -> Outcome:
    found = {entry.outcome for entry in entries}
    return next(outcome for outcome in _WORST if outcome in found)


def _undo(entry: Release, outcome: Outcome, passage: Passage) -> str:
    """The command that goes back, where this run is the last one and ended well."""
    if outcome is not Outcome.GOOD or passage.run != newest(passage.told.values()):
        return ""
    if entry.action == "deploy":
        return f"inv rollback --env {passage.environment}"
    if entry.action == "rollback" and entry.left:
        return f"inv rollback --env {passage.environment} --to {entry.left}"
    return ""


def _host(name: str, told: Told, entry: Release, passage: Passage) -> dict[str, Any]:
    before = _before(told, entry)
    return {
        "host": name,
        "outcome": entry.outcome.value,
        "seconds": entry.seconds,
        "reason": entry.reason,
        "whole": not told.faults,
        "changes": _changes(before, entry),
        "stages": [_stage(stage) for stage in passage.stages.get(name, ())],
    }


def _before(told: Told, entry: Release) -> Release | None:
    """The release that served when the run began."""
    earlier = told.releases[: told.releases.index(entry)]
    fitting = (one for one in reversed(earlier) if one.good and one.action in _MOVES and one.id != entry.id)
    return next(fitting, None)


def _changes(before: Release | None, entry: Release) -> list[dict[str, Any]]:
    was = dict(before.services) if before else {}
    found = []
    for service, run in entry.services:
        old = was.get(service)
        found.append(
            {
                "service": service,
                "before": {"image": old.image, "digest": old.digest, "revision": old.revision} if old else None,
                "after": {"image": run.image, "digest": run.digest, "revision": run.revision},
                "color": run.color.value,
                "image_changed": old is None or old.digest != run.digest,
                "configuration_changed": old is None or old.spec != run.spec,
            }
        )
    return found


def _stage(stage: Stage) -> dict[str, Any]:
    ended = stage.ended
    return {
        "step": stage.step,
        "began": round(stage.began, 3),
        "seconds": None if ended is None else round(max(0.0, ended - stage.began), 3),
        "status": stage.status,
        "log": list(stage.log),
    }


def _runs(told: Iterable[Told]) -> list[dict[str, Any]]:
    """The newest runs of all hosts, oldest first: each with its worst outcome and its longest time."""
    by_id: dict[str, list[Release]] = {}
    for one in told:
        for release in one.releases:
            by_id.setdefault(release.id, []).append(release)
    return [
        {
            "id": run,
            "time": entries[0].time,
            "action": entries[0].action,
            "outcome": _worst(entries).value,
            "seconds": max(entry.seconds for entry in entries),
            "images": ", ".join(f"{name} {_tag(service.image)}" for name, service in entries[-1].services),
        }
        for run, entries in sorted(by_id.items())[-RUNS_SHOWN:]
    ]


def _tag(image: str) -> str:
    last = image.rpartition("/")[2]
    return last.partition("@")[0].partition(":")[2] or short_digest(last.partition("@")[2]) or last


def _requests(passage: Passage) -> dict[str, Any] | None:
    """The figures of a load that ran: in all, and within two seconds of each cutover."""
    stages = [(host, stage) for host, found in passage.stages.items() for stage in found]
    if passage.requests is None or not stages:
        return None
    start = min(stage.began for _, stage in stages)
    end = max(stage.ended or stage.began for _, stage in stages)
    near = [
        {"host": host, "step": stage.step, **passage.requests.figures(stage.began - 2, stage.ended + 2)}
        for host, stage in stages
        if stage.step.endswith(".cutover") and stage.ended is not None
    ]
    return {
        "whole": passage.requests.figures(start - 5, end + 5),
        "seconds": passage.requests.each_second(start - 5, end + 5),
        "cutovers": near,
    }
