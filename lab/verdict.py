"""The results of a round of the demo: its table, its figures and its problems."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.load import LoadResult, Server, Window

OLD, NEW, BROKEN = "v1", "v2", "v3-broken"
MAX_FAILURES_LISTED = 20
_HEADINGS = ("what happened", "seconds", "requests", "failed", "p50 ms", "p99 ms", "version served")


@dataclass(frozen=True)
class Phase:
    """A period of a round (monotonic seconds), and the versions that may answer requests of that period."""

    title: str
    start: float
    end: float
    allowed: tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """A command, its expected and actual exit code, and its times (monotonic seconds)."""

    text: str
    expected: int
    exit_code: int
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """The duration of the command."""
        return self.end - self.start

    @property
    def as_expected(self) -> bool:
        """Whether the command ended with the expected exit code."""
        return self.exit_code == self.expected


@dataclass(frozen=True)
class Round:
    """One upgrade and one undo under load. The phases have no gaps between them."""

    servers: tuple[Server, ...]
    phases: tuple[Phase, ...]
    steady: Phase
    upgrade: Command
    undo: Command | None
    load: LoadResult

    @property
    def rows(self) -> tuple[Phase, ...]:
        """The phases, with rows for the time before and after them, so that every request is in exactly one row."""
        first, last = self.phases[0], self.phases[-1]
        return (
            Phase("load begins", -math.inf, first.start, first.allowed),
            *self.phases,
            Phase("every upload read back", last.end, math.inf, last.allowed),
        )


def table(done: Round) -> str:
    """Return a table of the phases."""
    rows = [_row(done, phase) for phase in done.rows]
    whole = done.load.window()
    rows.append(("in all", f"{done.load.ended - done.load.started:.1f}", *_figures(whole), ""))
    widths = [max(len(row[column]) for row in [_HEADINGS, *rows]) for column in range(len(_HEADINGS))]
    rule = "  ".join("-" * width for width in widths)
    lines = [
        _line(_HEADINGS, widths),
        rule,
        *(_line(row, widths) for row in rows[:-1]),
        rule,
        _line(rows[-1], widths),
    ]
    load = done.load
    kinds = ", ".join(f"{kind.value} {count}" for kind, count in load.kinds().items())
    uploads = f"{load.writes_acknowledged} acknowledged, {load.writes_lost} lost"
    return "\n".join([*lines, "", f"requests  {kinds}", f"uploads   {uploads}"])


def problems(done: Round) -> list[str]:
    """Return everything that did not go as expected."""
    found = [
        f"`{command.text}` ended with exit code {command.exit_code} instead of {command.expected}"
        for command in (done.upgrade, done.undo)
        if command is not None and not command.as_expected
    ]
    if done.undo is None:
        found.append(f"{BROKEN} was not tried, because the upgrade to {NEW} failed")
    if done.load.failures:
        causes = ", ".join(f"{count} x {cause}" for cause, count in done.load.causes.items())
        found.append(f"{len(done.load.failures)} requests failed: {causes}")
    if done.load.writes_lost:
        found.append(f"{done.load.writes_lost} of {done.load.writes_acknowledged} acknowledged uploads are lost")
    if not done.load.writes_acknowledged:
        found.append("no upload was acknowledged")
    return found + [text for phase in done.phases for text in _wrong_versions(done, phase)]


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Return the figures for programs: sums and maxima over all rounds, and each round."""
    runs = [_figures_of(done) for done in rounds]
    sums = ("requests", "failed", "writes_acknowledged", "writes_lost")
    worst = ("upgrade_seconds", "undo_seconds", "p99_ms_steady", "p99_ms_upgrade")
    last = rounds[-1]
    return {
        **{key: sum(run[key] for run in runs) for key in sums},
        **{key: max(run[key] for run in runs) for key in worst},
        "ok": all(run["ok"] for run in runs),
        "hosts": {server.name: server.address for server in last.servers},
        "versions": _serving(last, last.phases[-1]),
        "failures": [text for run in runs for text in run["failures"]][:MAX_FAILURES_LISTED],
        "problems": [text for run in runs for text in run["problems"]],
        "runs": runs,
    }


def _figures_of(done: Round) -> dict[str, Any]:
    load, wrong = done.load, problems(done)
    failures = [f"{record.ended - load.started:.2f} s  {record}" for record in load.failures]
    return {
        "requests": len(load.records),
        "failed": len(load.failures),
        "writes_acknowledged": load.writes_acknowledged,
        "writes_lost": load.writes_lost,
        "upgrade_seconds": round(done.upgrade.seconds, 1),
        "undo_seconds": round(done.undo.seconds, 1) if done.undo else 0.0,
        "p99_ms_steady": load.window(done.steady.start, done.steady.end).p99_ms,
        "p99_ms_upgrade": load.window(done.upgrade.start, done.upgrade.end).p99_ms,
        "ok": not wrong,
        "phases": [_phase(done, phase) for phase in done.phases],
        "failures": [*failures, *(f"lost: {lost}" for lost in load.lost)][:MAX_FAILURES_LISTED],
        "problems": wrong,
    }


def _phase(done: Round, phase: Phase) -> dict[str, Any]:
    window = done.load.window(phase.start, phase.end)
    return {
        "title": phase.title,
        "seconds": round(phase.end - phase.start, 1),
        "requests": window.requests,
        "failed": window.failed,
        "p50_ms": window.p50_ms,
        "p99_ms": window.p99_ms,
        "versions": _serving(done, phase),
    }


def _serving(done: Round, phase: Phase) -> dict[str, dict[str, list[str]]]:
    """Return, per host and service, the versions that answered requests of the phase, in order of appearance."""
    found: dict[str, dict[str, list[str]]] = {server.name: {} for server in done.servers}
    for seen in done.load.sightings(phase.start, phase.end):
        found[seen.server].setdefault(seen.service, []).append(seen.version)
    return found


def _wrong_versions(done: Round, phase: Phase) -> Iterable[str]:
    for server, services in _serving(done, phase).items():
        for service in ("backend", "frontend"):
            seen = services.get(service, [])
            strange = [version for version in seen if version not in phase.allowed]
            if not seen:
                yield f"{phase.title}: the {service} on {server} answered nothing"
            elif strange:
                yield f"{phase.title}: {server} showed {service} {', '.join(strange)}"
            elif seen[-1] != phase.allowed[-1]:
                yield f"{phase.title}: the {service} on {server} never became {phase.allowed[-1]}"


def _row(done: Round, phase: Phase) -> tuple[str, ...]:
    seconds = f"{phase.end - phase.start:.1f}" if math.isfinite(phase.end - phase.start) else ""
    window = done.load.window(phase.start, phase.end)
    return (phase.title, seconds, *_figures(window), _versions(_serving(done, phase)))


def _figures(window: Window) -> tuple[str, ...]:
    return (str(window.requests), str(window.failed), f"{window.p50_ms:.1f}", f"{window.p99_ms:.1f}")


def _versions(serving: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    """Return `v1 → v2` when all hosts and services changed alike, otherwise one text per service."""
    shown = {
        f"{server} {service}": " → ".join(versions)
        for server, services in serving.items()
        for service, versions in services.items()
    }
    if len(set(shown.values())) <= 1:
        return next(iter(shown.values()), "")
    return ", ".join(f"{place} {versions}" for place, versions in shown.items())


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *figures, last = cells
    middle = [f"{cell:>{width}}" for cell, width in zip(figures, widths[1:-1], strict=True)]
    return "  ".join([f"{first:<{widths[0]}}", *middle, last]).rstrip()
