"""Where every host of a run stands, folded from its events. It owns the live table's rows, draws nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from fabfile.model import Event, Phase
from fabfile.plans.step import Plan
from fabfile.report.text import bar, one_line, progress


class Mood(Enum):
    """How a host is doing, in the order in which a person wants to see them when the screen is short."""

    BAD = 0
    RUNNING = 1
    UNDONE = 2
    WAITING = 3
    GOOD = 4


@dataclass(frozen=True)
class Row:
    """One host: its current step and since when (Unix seconds), how many steps are done, how it stands."""

    host: str
    expected: int = 0
    step: str = ""
    title: str = ""
    begun: float = 0.0
    since: float = 0.0
    until: float = 0.0
    finished: int = 0
    mood: Mood = Mood.WAITING
    result: str = "waiting"

    def elapsed(self, now: float) -> float:
        """Seconds in the current step, or in the whole run on the host once it has ended."""
        return self.until - self.begun if self.until else now - self.since


_ENDS = {
    Phase.DONE: (Mood.GOOD, "done"),
    Phase.FAILED: (Mood.BAD, "failed"),
    Phase.UNDONE: (Mood.UNDONE, "undone"),
}


class Board:
    """The rows of all hosts, in the order in which they were planned or heard of; not safe for threads."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}

    def expect(self, plans: Sequence[Plan]) -> None:
        """Take in the hosts of a plan and how many steps each has."""
        for plan in plans:
            steps = len(plan.lock) + len(plan.prepare) + len(plan.steps) + len(plan.finish)
            row = self._rows.get(plan.host, Row(plan.host))
            self._rows[plan.host] = replace(row, expected=0 if plan.empty else steps)

    def apply(self, event: Event) -> None:
        """Move the event's host on; an event of the whole run moves none."""
        if not event.host or event.phase is Phase.NOTE:
            return
        row = self._rows.get(event.host, Row(event.host))
        row = replace(row, begun=row.begun or event.at, since=row.since or event.at)
        self._rows[event.host] = _step_moved(row, event) if event.step else _host_moved(row, event)

    def visible(self, room: int) -> tuple[list[Row], int]:
        """The rows that fit, those that need eyes first when not all do, and the number of those left out."""
        rows = list(self._rows.values())
        if len(rows) <= room:
            return rows, 0
        return sorted(rows, key=lambda row: row.mood.value)[:room], len(rows) - room


def _step_moved(row: Row, event: Event) -> Row:
    if event.phase is Phase.PROGRESS:
        title = f"{bar(event.sent, event.total)} {progress(event.sent, event.total, event.seconds)}"
        return replace(row, step=event.step, title=title, until=0.0, mood=Mood.RUNNING, result="running")
    row = replace(row, step=event.step, title=one_line(event.title), until=0.0)
    if event.phase is Phase.STARTED:
        return replace(row, since=event.at, mood=Mood.RUNNING, result="running")
    if event.phase is Phase.DONE:
        return replace(row, since=event.at, finished=row.finished + 1, mood=Mood.RUNNING, result="running")
    if event.phase is Phase.FAILED:
        return replace(row, since=event.at, mood=Mood.BAD, result=f"failed at {event.step}")
    return replace(row, since=event.at, mood=Mood.UNDONE, result="undoing")


def _host_moved(row: Row, event: Event) -> Row:
    if event.phase in _ENDS:
        mood, result = _ENDS[event.phase]
        return replace(row, step="", title=one_line(event.title), until=event.at, mood=mood, result=result)
    mood, result = (Mood.UNDONE, "undoing") if event.phase is Phase.UNDOING else (Mood.RUNNING, "running")
    return replace(row, step="", title=one_line(event.title), since=event.at, until=0.0, mood=mood, result=result)
