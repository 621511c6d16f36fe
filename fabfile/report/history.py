"""What was done on each host, for people and programs. It reads nothing and judges nothing."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from fabfile.model import Environment, Release
from fabfile.report.output import Output
from fabfile.report.text import count, duration, one_line, short_digest, table


@dataclass(frozen=True)
class Told:
    """One host's history: its entries, oldest first, the lines at which it is not whole, the hash of its last line.

    `left` are the ids of good releases that a rollback left: no later rollback chooses them by itself. `names` says
    whose the keys are, by fingerprint.
    """

    releases: tuple[Release, ...]
    faults: tuple[tuple[int, str], ...] = ()
    head: str = ""
    left: frozenset[str] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)


def render_history(
    environment: Environment,
    told: Mapping[str, Told],
    lost: Mapping[str, str],
    *,
    limit: int,
    verify: bool,
    json: bool,
    out: TextIO,
) -> None:
    """Write the newest `limit` entries of each host (0: all), newest last; `lost` are hosts that gave no answer."""
    output = Output(out, environment.secrets)
    if json:
        hosts = [_host_object(name, one, limit) for name, one in told.items()]
        hosts += [{"host": name, "unreachable": why} for name, why in lost.items()]
        _write_json({"environment": environment.name, "hosts": hosts}, output)
        return
    lines = [line for name, one in told.items() for line in _host_lines(name, one, limit, verify=verify)]
    lines += [f"{name}  NOT REACHED: {one_line(why)}" for name, why in lost.items()]
    output.write(output.safe("\n".join(lines)) + "\n")
    output.flush()


def _newest(releases: tuple[Release, ...], limit: int) -> tuple[Release, ...]:
    return releases[-limit:] if limit > 0 else releases


def _host_lines(name: str, told: Told, limit: int, *, verify: bool) -> Iterator[str]:
    shown = _newest(told.releases, limit)
    earlier = len(told.releases) - len(shown)
    entries = f"{len(told.releases)} {'entry' if len(told.releases) == 1 else 'entries'}"
    yield f"{name}  {entries}{f', the newest {len(shown)} of them' if earlier else ''}"
    rows = table([_row(release, told) for release in shown])
    for release, row in zip(shown, rows, strict=True):
        yield row
        yield from _details(release, told.names)
    if told.faults:
        yield f"  NOT WHOLE: {count(len(told.faults), 'place')} where a line was changed, removed or cut off"
        yield from (f"    line {line}: {problem}" for line, problem in told.faults)
    elif verify:
        yield f"  whole: every line as it was written; the last one's hash is {told.head or 'none'}"
    yield ""


def _row(release: Release, told: Told) -> tuple[str, ...]:
    outcome = release.outcome.value + (", left by a rollback" if release.id in told.left else "")
    return ("", _time(release.time), release.action, outcome, duration(release.seconds), _images(release))


def _time(text: str) -> str:
    return one_line(text.replace("T", " ").replace("+00:00", " UTC"))


def _images(release: Release) -> str:
    return ", ".join(
        f"{name} {run.image.rpartition(':')[2]} ({short_digest(run.digest)})" for name, run in release.services
    )


def _details(release: Release, names: Mapping[str, str]) -> Iterator[str]:
    who = f"by {release.owner or 'unknown'}"
    whose = f" of {names[release.key]}" if release.key in names else ""
    key = f" with key {release.key}{whose}" if release.key else ""
    client = f" from {release.client}" if release.client else ""
    station = f" ({release.workstation})" if release.workstation else ""
    clone = f", clone {release.revision}" if release.revision else ""
    yield f"    {release.id} {one_line(who + key + client + station + clone)}"
    revisions = {name: run.revision for name, run in release.services if run.revision}
    if revisions:
        yield "    source " + one_line(", ".join(f"{name} {revision}" for name, revision in revisions.items()))
    if release.target:
        leaving = f", leaving {release.left}" if release.left else ""
        yield f"    to {one_line(release.target + leaving)}"
    if release.reason:
        yield f"    because {one_line(release.reason)}"


def _host_object(name: str, told: Told, limit: int) -> dict[str, Any]:
    return {
        "host": name,
        "entries": len(told.releases),
        "whole": not told.faults,
        "faults": [{"line": line, "problem": problem} for line, problem in told.faults],
        "head": told.head,
        "releases": [_release_object(release, told) for release in _newest(told.releases, limit)],
    }


def _release_object(release: Release, told: Told) -> dict[str, Any]:
    return {
        "id": release.id,
        "time": release.time,
        "action": release.action,
        "outcome": release.outcome.value,
        "left_by_rollback": release.id in told.left,
        "seconds": release.seconds,
        "services": {
            name: {"image": run.image, "digest": run.digest, "color": run.color.value, "revision": run.revision}
            for name, run in release.services
        },
        "owner": release.owner,
        "key": release.key,
        "key_of": told.names.get(release.key, ""),
        "client": release.client,
        "workstation": release.workstation,
        "revision": release.revision,
        "target": release.target,
        "left": release.left,
        "reason": release.reason,
    }


def _write_json(value: Mapping[str, Any], output: Output) -> None:
    from fabfile.report.json_lines import masked

    output.write(json_format.dumps(masked(value, output), indent=2) + "\n")
    output.flush()
