"""The report for a person at a terminal: a table that redraws itself, a row per host. It decides nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from threading import RLock
from types import TracebackType
from typing import IO, cast

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fabfile.model import Event, Phase, Summary
from fabfile.plans.step import Plan
from fabfile.report.board import Board, Mood, Row
from fabfile.report.output import Output
from fabfile.report.plan import plan_lines
from fabfile.report.summary import event_lines, summary_lines
from fabfile.report.text import count, duration, width

_STYLES = {
    Mood.WAITING: "dim",
    Mood.RUNNING: "cyan",
    Mood.GOOD: "green",
    Mood.BAD: "bold red",
    Mood.UNDONE: "yellow",
}

#: Lines of the screen that the table leaves to its own frame and to the prompt.
_MARGIN = 5


class LiveReporter:
    """Redraws the table four times a second while events arrive; failures and notes scroll by above it."""

    def __init__(self, output: Output, *, environ: Mapping[str, str], clock: Callable[[], float] = time.time) -> None:
        self._output = output
        self._clock = clock
        self._board = Board()
        # Two locks: the thread that redraws holds the console's lock when it asks for the rows, so nobody may
        # hold the lock of the rows while asking for the console.
        self._rows = RLock()
        self._drawing = RLock()
        self._host_columns = 0
        self._console = Console(
            file=cast("IO[str]", output), no_color=bool(environ.get("NO_COLOR")), highlight=False, _environ=environ
        )
        self._live: Live | None = None

    def plan(self, plans: Sequence[Plan], *, scripts: bool = False, batches: Sequence[Sequence[str]] = ()) -> None:
        """Show the plans, with every command when `scripts`; the table waits for the first step."""
        self.close()
        with self._rows:
            self._host_columns = max((width(plan.host) for plan in plans), default=0)
            self._board.expect(plans)
        self._output.show(plan_lines(plans, scripts=scripts, batches=batches))

    def event(self, event: Event) -> None:
        """Move the table on; what a person should not miss is printed above it as well."""
        with self._rows:
            self._board.apply(event)
        with self._drawing:
            if event.host and self._live is None:
                self._live = Live(self, console=self._console, refresh_per_second=4)
                self._live.start()
        if event.phase is Phase.PROGRESS:
            return
        if event.detail or event.phase in (Phase.FAILED, Phase.NOTE, Phase.UNDOING) or not event.host:
            lines = event_lines(event, host_columns=self._host_columns)
            self._console.print(Text(self._output.safe("\n".join(lines)), _event_style(event.phase)))

    def summary(self, summary: Summary) -> None:
        """Leave the last table on the screen and show how the run ended."""
        self.close()
        self._output.show(summary_lines(summary))

    def close(self) -> None:
        """Stop redrawing and give the cursor back."""
        with self._drawing:
            if self._live is not None:
                self._live.stop()
                self._live = None

    def __enter__(self) -> LiveReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = max((options.height or console.height) - _MARGIN, 3)
        with self._rows:
            rows, hidden = self._board.visible(room)
            cells = [self._cells(row) for row in rows]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for title in ("HOST", "STEP", "ELAPSED", "STEPS", "RESULT"):
            justify = "right" if title in ("ELAPSED", "STEPS") else "left"
            table.add_column(title, no_wrap=True, overflow="ellipsis", justify=justify, style="")  # type: ignore[arg-type]
        for row in cells:
            table.add_row(*row)
        yield table
        if hidden:
            yield Text(f"… and {count(hidden, 'more host')}", "dim")

    def _cells(self, row: Row) -> list[Text]:
        step = f"{row.step}  {row.title}".strip() if row.step != row.title else row.step
        done = f"{row.finished}/{row.expected}" if row.expected else str(row.finished)
        texts = (row.host, step, duration(row.elapsed(self._clock())) if row.since else "", done, row.result)
        return [Text(self._output.safe(text), _STYLES[row.mood] if at == 4 else "") for at, text in enumerate(texts)]


def _event_style(phase: Phase) -> str:
    return "red" if phase is Phase.FAILED else "yellow" if phase in (Phase.UNDOING, Phase.UNDONE) else ""
