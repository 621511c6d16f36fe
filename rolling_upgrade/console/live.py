"""The live report of a run: a table with a row per host that redraws itself at the bottom of the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import RLock

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rolling_upgrade.console.output import Output
from rolling_upgrade.console.plan import plan_lines
from rolling_upgrade.console.reporter import Reporter, event_lines, summary_lines
from rolling_upgrade.console.screen import RowState, rich_console
from rolling_upgrade.console.text import bar, count, duration, one_line, progress, width
from rolling_upgrade.engine.model import Event, Phase, Summary
from rolling_upgrade.engine.plan import Plan


@dataclass(frozen=True)
class Row:
    """One host: its current step, the number of finished steps, its state. Times are Unix seconds.

    `running` has the start of each step that has not ended: steps of a group run at the same time.
    """

    host: str
    planned: int = 0
    step: str = ""
    title: str = ""
    started_at: float = 0.0
    step_started_at: float = 0.0
    ended_at: float = 0.0
    done: int = 0
    state: RowState = RowState.WAITING
    result: str = "waiting"
    running: tuple[Event, ...] = ()

    def elapsed(self, now: float) -> float:
        """Return the seconds in the current step, or in the run once the host has finished it."""
        return self.ended_at - self.started_at if self.ended_at else now - self.step_started_at


class Board:
    """The rows of all hosts, in the order of the plans, then of the first events. Not thread-safe."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}

    def expect(self, plans: Sequence[Plan]) -> None:
        """Add the planned hosts and their numbers of steps."""
        for plan in plans:
            steps = len(plan.acquire) + len(plan.prepare) + len(plan.steps) + len(plan.finalize)
            row = self._rows.get(plan.host, Row(plan.host))
            self._rows[plan.host] = replace(row, planned=0 if plan.empty else steps)

    def apply(self, event: Event) -> None:
        """Update the row of the event's host. Notes and events without a host change no row."""
        if not event.host or event.phase is Phase.NOTE:
            return
        row = self._rows.get(event.host, Row(event.host))
        row = replace(row, started_at=row.started_at or event.at, step_started_at=row.step_started_at or event.at)
        self._rows[event.host] = _after_step(row, event) if event.step else _after_host(row, event)

    def visible(self, room: int) -> tuple[list[Row], int]:
        """Return the rows that fit, most urgent first if they do not all fit, and the number of hidden rows."""
        rows = list(self._rows.values())
        if len(rows) <= room:
            return rows, 0
        return sorted(rows, key=lambda row: row.state.order)[:room], len(rows) - room


def _after_step(row: Row, event: Event) -> Row:
    if event.phase is Phase.PROGRESS:
        title = f"{bar(event.sent, event.total)} {progress(event.sent, event.total, event.seconds)}"
        return replace(row, step=event.step, title=title, ended_at=0.0, state=RowState.RUNNING, result="running")
    others = tuple(started for started in row.running if started.step != event.step)
    row = replace(row, running=(*others, event) if event.phase is Phase.STARTED else others)
    shown = others[-1] if others and event.phase is Phase.DONE else event
    row = replace(row, step=shown.step, title=one_line(shown.title), step_started_at=shown.at, ended_at=0.0)
    if event.phase is Phase.FAILED:
        return replace(row, state=RowState.FAILED, result=f"failed at {event.step}")
    if event.phase in (Phase.STARTED, Phase.DONE):
        done = row.done + (event.phase is Phase.DONE)
        return replace(row, done=done, state=RowState.RUNNING, result="running")
    return replace(row, state=RowState.ATTENTION, result="undoing")


_RESULTS = {
    Phase.DONE: (RowState.HEALTHY, "done"),
    Phase.FAILED: (RowState.FAILED, "failed"),
    Phase.UNDONE: (RowState.ATTENTION, "undone"),
}


def _after_host(row: Row, event: Event) -> Row:
    row = replace(row, step="", title=one_line(event.title))
    if event.phase in _RESULTS:
        state, result = _RESULTS[event.phase]
        return replace(row, ended_at=event.at, state=state, result=result)
    undoing = event.phase is Phase.UNDOING
    state, result = (RowState.ATTENTION, "undoing") if undoing else (RowState.RUNNING, "running")
    return replace(row, step_started_at=event.at, ended_at=0.0, state=state, result=result)


#: Rows of the screen that the table leaves free for its heading and the prompt.
_MARGIN = 5


class LiveReporter(Reporter):
    """Shows a table with a row per host; failures, notes and log lines scroll past above it."""

    def __init__(self, output: Output, *, environ: Mapping[str, str], clock: Callable[[], float] = time.time) -> None:
        self._output = output
        self._clock = clock
        self._board = Board()
        self._board_lock = RLock()
        self._host_columns = 0
        self._console = rich_console(output, environ)
        self._live: Live | None = None
        self._live_lock = RLock()

    def plan(self, plans: Sequence[Plan], *, scripts: bool = False, batches: Sequence[Sequence[str]] = ()) -> None:
        """Show the plans, with every command when `scripts`; the table appears with the first step."""
        self.close()
        with self._board_lock:
            self._host_columns = max((width(plan.host) for plan in plans), default=0)
            self._board.expect(plans)
        self._output.show(plan_lines(plans, scripts=scripts, batches=batches))

    def event(self, event: Event) -> None:
        """Update the table; print failures, notes and log lines above it."""
        with self._board_lock:
            self._board.apply(event)
        if event.host:
            self._start()
        if event.phase is Phase.PROGRESS:
            return
        if event.detail or event.phase in (Phase.FAILED, Phase.NOTE, Phase.UNDOING) or not event.host:
            text = self._output.safe("\n".join(event_lines(event, host_columns=self._host_columns)))
            self._console.print(Text(text, _event_style(event.phase)))

    def summary(self, summary: Summary) -> None:
        """Leave the last table on the screen and show how the run ended."""
        self.close()
        self._output.show(summary_lines(summary))

    def close(self) -> None:
        """Stop redrawing, leave the last table on the screen and show the cursor again."""
        with self._live_lock:
            if self._live is not None:
                self._live.stop()
                self._live = None

    def _start(self) -> None:
        """Show the table at the bottom of the terminal, redrawn four times a second, unless it is shown."""
        with self._live_lock:
            if self._live is None:
                self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=4)
                self._live.start()

    def _table(self) -> RenderableType:
        """Return the table. Rich holds its lock here; so call Rich nowhere while holding `_board_lock`: deadlock."""
        with self._board_lock:
            rows, hidden = self._board.visible(max(self._console.size.height - _MARGIN, 3))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for title in ("HOST", "STEP", "ELAPSED", "STEPS", "RESULT"):
            justify = "right" if title in ("ELAPSED", "STEPS") else "left"
            table.add_column(title, no_wrap=True, overflow="ellipsis", justify=justify, style="")  # type: ignore[arg-type]
        for row in rows:
            table.add_row(*self._cells(row))
        return Group(table, Text(f"… and {count(hidden, 'more host')}", "dim")) if hidden else table

    def _cells(self, row: Row) -> list[Text]:
        step = f"{row.step}  {row.title}".strip() if row.step != row.title else row.step
        done = f"{row.done}/{row.planned}" if row.planned else str(row.done)
        texts = (row.host, step, duration(row.elapsed(self._clock())) if row.step_started_at else "", done, row.result)
        return [Text(self._output.safe(text), row.state.style if at == 4 else "") for at, text in enumerate(texts)]


def _event_style(phase: Phase) -> str:
    return "red" if phase is Phase.FAILED else "yellow" if phase in (Phase.UNDOING, Phase.UNDONE) else ""
