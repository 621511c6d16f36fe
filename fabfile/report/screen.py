"""Where the dashboard is shown: on a screen of its own, or as lines. It owns the terminal's state and gives it back."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Protocol, TextIO

from fabfile.report.dashboard import Dashboard, Happening
from fabfile.report.dashboard_lines import Line, View, look_lines, screen
from fabfile.report.output import Output
from fabfile.report.reporter import is_live
from fabfile.report.text import width

if TYPE_CHECKING:
    from rich.console import Console

#: How often everything is drawn anew: what another program wrote onto the terminal does not stay for long.
_ANEW_SECONDS = 30.0
_HOME_AND_CLEAR, _CLEAR_TO_END = "\x1b[H\x1b[2J", "\x1b[K"


class Display(Protocol):
    """Where the dashboard is shown."""

    def look(self, board: Dashboard, host: str, fresh: Sequence[Happening]) -> None:
        """Show a look at one host and what it changed."""

    def tick(self, board: Dashboard, *, anew: bool = False) -> None:
        """Show how things stand now; `anew` when the screen may have been spoilt."""

    @property
    def gone(self) -> bool:
        """Whether nobody reads any more."""


@contextlib.contextmanager
def display(
    stream: TextIO,
    secrets: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
) -> Iterator[Display]:
    """The display that fits the reader; on a terminal its own screen without echo, given back at the end."""
    environ = environ if environ is not None else os.environ
    output = Output(stream, secrets)
    if not is_live(stream, environ):
        yield PlainDisplay(output, clock)
        return
    with _quiet(output), ScreenDisplay(output, environ, clock).opened() as shown:
        yield shown


class PlainDisplay:
    """Writes a line a look, and one for each thing that changed."""

    def __init__(self, output: Output, clock: Callable[[], float]) -> None:
        self._output, self._clock = output, clock

    def look(self, board: Dashboard, host: str, fresh: Sequence[Happening]) -> None:
        """Write the look's lines."""
        view = View(0, 0, self._clock(), self._output.safe)
        self._output.show(look_lines(board.host(host), fresh, view))

    def tick(self, board: Dashboard, *, anew: bool = False) -> None:
        """Nothing: a look that found something has a line of its own."""

    @property
    def gone(self) -> bool:
        """Whether the pipe is closed."""
        return self._output.gone


class ScreenDisplay:
    """Draws the dashboard on the terminal's alternate screen; only what changed is sent: the link may be slow."""

    def __init__(self, output: Output, environ: Mapping[str, str], clock: Callable[[], float]) -> None:
        from rich.console import Console

        self._output, self._clock = output, clock
        self._console: Console = Console(
            file=output,  # type: ignore[arg-type]
            no_color=bool(environ.get("NO_COLOR")),
            highlight=False,
            _environ=environ,
        )
        self._lines: list[Line] = []
        self._size = (0, 0)
        self._drawn_at = 0.0

    @contextlib.contextmanager
    def opened(self) -> Iterator[ScreenDisplay]:
        """The terminal on its alternate screen, without a cursor; as it was afterwards."""
        self._console.set_alt_screen(True)
        self._console.show_cursor(False)
        try:
            yield self
        finally:
            self._console.show_cursor(True)
            self._console.set_alt_screen(False)

    def look(self, board: Dashboard, host: str, fresh: Sequence[Happening]) -> None:
        """Nothing yet: the next tick draws what many hosts said at once."""

    def tick(self, board: Dashboard, *, anew: bool = False) -> None:
        """Draw what changed, ages and the clock too; all of it on another size of the terminal, and now and then."""
        now, size = self._clock(), self._console.size
        lines = screen(board, View(size.width, size.height, now, self._output.safe))
        text = ""
        if anew or size != self._size or now - self._drawn_at > _ANEW_SECONDS:
            self._lines, self._size, self._drawn_at = [], size, now
            text = _HOME_AND_CLEAR
        text += "".join(
            self._changed(at, *both) for at, both in enumerate(zip_longest(self._lines, lines, fillvalue=()))
        )
        self._lines = lines
        if text:
            self._output.write(text)
            self._output.flush()

    @property
    def gone(self) -> bool:
        """Whether the terminal hung up."""
        return self._output.gone

    def _changed(self, row: int, old: Line, new: Line) -> str:
        """What turns a line into another: everything from the first piece on that differs."""
        same = next((at for at, both in enumerate(zip_longest(old, new)) if both[0] != both[1]), None)
        if same is None:
            return ""
        column = sum(width(text) for text, _ in new[:same])
        return f"\x1b[{row + 1};{column + 1}H{_CLEAR_TO_END}{self._drawn(new[same:])}"

    def _drawn(self, line: Line) -> str:
        from rich.text import Text

        with self._console.capture() as captured:
            self._console.print(Text.assemble(*line), end="", no_wrap=True, overflow="crop", crop=True)
        return captured.get()


@contextlib.contextmanager
def _quiet(output: Output) -> Iterator[None]:
    """The terminal without echo: what is typed meanwhile is neither shown nor left to the shell."""
    import termios

    try:
        number = output.fileno()
        before = termios.tcgetattr(number)
    except (OSError, ValueError, termios.error):
        yield
        return
    quiet = [*before[:3], before[3] & ~(termios.ECHO | termios.ECHONL), *before[4:]]
    termios.tcsetattr(number, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(number, termios.TCSAFLUSH, before)
