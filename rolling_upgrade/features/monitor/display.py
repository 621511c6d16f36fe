"""The displays of the dashboard: a full screen on a terminal, lines for any other output."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TextIO

from rolling_upgrade.console.output import Output, is_live
from rolling_upgrade.console.screen import FullScreen
from rolling_upgrade.features.monitor.dashboard import Dashboard, HostEvent
from rolling_upgrade.features.monitor.view import View, check_lines, screen_lines


class Display(Protocol):
    """An output of the dashboard."""

    def show_check(self, board: Dashboard, host: str, events: Sequence[HostEvent]) -> None:
        """Show one check of a host and the events that it caused."""

    def tick(self, board: Dashboard, *, redraw: bool = False) -> None:
        """Show the present state; `redraw` when another program may have written to the screen."""

    @property
    def closed(self) -> bool:
        """Whether the terminal or pipe is closed."""


@contextlib.contextmanager
def display(
    stream: TextIO,
    secrets: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
) -> Iterator[Display]:
    """Open the display for the stream; restore a terminal at the end."""
    environ = environ if environ is not None else os.environ
    output = Output(stream, secrets)
    if not is_live(stream, environ):
        yield PlainDisplay(output, clock)
        return
    with FullScreen(output, environ, clock).opened() as screen:
        yield ScreenDisplay(output, screen, clock)


class PlainDisplay:
    """Writes a line for each check and one for each event."""

    def __init__(self, output: Output, clock: Callable[[], float]) -> None:
        self._output, self._clock = output, clock

    def show_check(self, board: Dashboard, host: str, events: Sequence[HostEvent]) -> None:
        """Write the lines of a check."""
        view = View(0, 0, self._clock(), self._output.safe)
        self._output.show(check_lines(board.host(host), events, view))

    def tick(self, board: Dashboard, *, redraw: bool = False) -> None:
        """Do nothing: every check has its own lines."""

    @property
    def closed(self) -> bool:
        """Whether the reader closed the pipe."""
        return self._output.closed


class ScreenDisplay:
    """Draws the dashboard on a full screen."""

    def __init__(self, output: Output, screen: FullScreen, clock: Callable[[], float]) -> None:
        self._output, self._screen, self._clock = output, screen, clock

    def show_check(self, board: Dashboard, host: str, events: Sequence[HostEvent]) -> None:
        """Do nothing: the next tick draws the checks of all hosts at once."""

    def tick(self, board: Dashboard, *, redraw: bool = False) -> None:
        """Draw the dashboard with the present time."""
        now = self._clock()
        self._screen.draw(
            lambda columns, rows: screen_lines(board, View(columns, rows, now, self._output.safe)), redraw=redraw
        )

    @property
    def closed(self) -> bool:
        """Whether the terminal hung up."""
        return self._output.closed
