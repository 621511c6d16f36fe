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
from rolling_upgrade.console.reporter import Reporter, event_lines, progress_text, summary_lines
from rolling_upgrade.console.screen import RowState, rich_console
from rolling_upgrade.console.text import bar, count, duration, one_line, width
from rolling_upgrade.engine.model import Event, Phase, Summary
from rolling_upgrade.engine.plan import Plan


@dataclass(frozen=True)
class RunningStep:
    """A step that runs, since `started_at`; `progress` is empty before it reports any."""

    id: str
    title: str
    started_at: float
    progress: str = ""


@dataclass(frozen=True)
class Row:
    """One host: its running steps, the number of finished ones, its state. Times are Unix seconds.

    Without a running step, `step` and `title` are those of the last event.
    """

    host: str
    planned: int = 0
    running: tuple[RunningStep, ...] = ()
    step: str = ""
    title: str = ""
    started_at: float = 0.0
    step_started_at: float = 0.0
    ended_at: float = 0.0
    done: int = 0
    state: RowState = RowState.WAITING
    result: str = "waiting"

    def elapsed(self, now: float) -> float:
        """Return the seconds in the oldest running step, or in the run once the host has finished it."""
        if self.ended_at:
            return self.ended_at - self.started_at
        return now - min((step.started_at for step in self.running), default=self.step_started_at)

    @property
    def activity(self) -> str:
        """The running step with its progress or title; of several steps all names, each with its progress."""
        if len(self.running) > 1:
            return "; ".join(f"{step.id} {step.progress}".rstrip() for step in self.running)
        if self.running:
            (step,) = self.running
            return _named(step.id, step.progress or step.title)
        return _named(self.step, self.title)


def _named(step: str, text: str) -> str:
    return f"{step}  {text}".strip() if step != text else step


class Board:
    """The rows of all hosts, in the order of the plans, then of the first events. Not thread-safe."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}

    def expect(self, plans: Sequence[Plan]) -> None:
        """Add the planned hosts and their numbers of steps."""
        for plan in plans:
            steps = len(plan.acquire) + len(plan.prepare) + len(plan.release) + len(plan.steps) + len(plan.finalize)
            row = self._rows.get(plan.host, Row(plan.host))
            self._rows[plan.host] = replace(row, planned=0 if plan.empty else steps)

    def apply(self, event: Event) -> None:
        """Update the row of the event's host. Notes, output and events without a host change no row."""
        if not event.host or event.phase in (Phase.NOTE, Phase.OUTPUT):
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
        text = progress_text(event)
        text = f"{bar(event.sent, event.total)} {text}" if event.total and not event.detail else text
        running = (replace(step, progress=text) if step.id == event.step else step for step in row.running)
        return replace(row, running=tuple(running))
    others = tuple(step for step in row.running if step.id != event.step)
    title = one_line(event.title)
    row = replace(row, running=others, step=event.step, title=title, step_started_at=event.at, ended_at=0.0)
    if event.phase is Phase.STARTED:
        started = RunningStep(event.step, title, event.at)
        return replace(row, running=(*others, started), state=RowState.RUNNING, result="running")
    if event.phase is Phase.DONE:
        row = replace(row, done=row.done + 1)
        # A step that was running beside the failed one ends after it.
        return row if row.state is RowState.FAILED else replace(row, state=RowState.RUNNING, result="running")
    if event.phase is Phase.FAILED:
        return replace(row, state=RowState.FAILED, result=f"failed at {event.step}")
    return replace(row, running=(), state=RowState.ATTENTION, result="undoing")


_RESULTS = {
    Phase.DONE: (RowState.HEALTHY, "done"),
    Phase.FAILED: (RowState.FAILED, "failed"),
    Phase.UNDONE: (RowState.ATTENTION, "undone"),
}


def _after_host(row: Row, event: Event) -> Row:
    row = replace(row, running=(), step="", title=one_line(event.title))
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
            self._host_columns = max((self._host_columns, *(width(plan.host) for plan in plans)))
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
        done = f"{row.done}/{row.planned}" if row.planned else str(row.done)
        texts = (
            row.host,
            row.activity,
            duration(row.elapsed(self._clock())) if row.step_started_at else "",
            done,
            row.result,
        )
        return [Text(self._output.safe(text), row.state.style if at == 4 else "") for at, text in enumerate(texts)]


def _event_style(phase: Phase) -> str:
    return "red" if phase is Phase.FAILED else "yellow" if phase in (Phase.UNDOING, Phase.UNDONE) else ""
