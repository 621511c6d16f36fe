"""Drawing on a terminal: the marks of rows, and a full screen.

The full screen sends only changed parts of lines, as the terminal may be behind a slow link.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeAlias

from rolling_upgrade.console.output import Output
from rolling_upgrade.console.text import width

if TYPE_CHECKING:
    from rich.console import Console

#: A piece of a line and its Rich style.
Span: TypeAlias = tuple[str, str]
Line: TypeAlias = tuple[Span, ...]

#: The interval between complete redraws of a full screen, which remove the output of other programs.
REDRAW_SECONDS = 30.0
_CLEAR_SCREEN, _CLEAR_TO_END = "\x1b[H\x1b[2J", "\x1b[K"


class RowState(Enum):
    """The state of a host's row, most urgent first, with its mark and Rich style; a short screen sorts rows by it."""

    FAILED = (0, "✗", "bold red")
    UNREACHABLE = (1, "?", "bold red")
    RUNNING = (2, "▶", "cyan")
    ATTENTION = (3, "▲", "yellow")
    WAITING = (4, "…", "dim")
    HEALTHY = (5, "●", "green")

    def __init__(self, order: int, mark: str, style: str) -> None:
        self.order, self.mark, self.style = order, mark, style


def rich_console(output: Output, environ: Mapping[str, str]) -> Console:
    """Return a console of Rich that writes to the output."""
    from rich.console import Console

    return Console(
        file=output,  # type: ignore[arg-type]
        no_color=bool(environ.get("NO_COLOR")),
        highlight=False,
        _environ=environ,
    )


class FullScreen:
    """A terminal's alternate screen, of which each draw sends only the changed parts of lines."""

    def __init__(self, output: Output, environ: Mapping[str, str], clock: Callable[[], float] = time.time) -> None:
        self._output, self._clock = output, clock
        self._console = rich_console(output, environ)
        self._lines: Sequence[Line] = ()
        self._size = (0, 0)
        self._cleared_at = 0.0

    @contextlib.contextmanager
    def opened(self) -> Iterator[FullScreen]:
        """Switch to the alternate screen without cursor and echo, and restore the terminal afterwards."""
        with _without_echo(self._output):
            self._console.set_alt_screen(True)
            self._console.show_cursor(False)
            try:
                yield self
            finally:
                self._console.show_cursor(True)
                self._console.set_alt_screen(False)

    def draw(self, render: Callable[[int, int], Sequence[Line]], *, redraw: bool = False) -> None:
        """Draw the lines that `render` returns for a number of columns and rows.

        Everything is drawn again with `redraw`, after a resize, and every `REDRAW_SECONDS`.
        """
        now, size = self._clock(), self._console.size
        lines = render(size.width, size.height)
        text = ""
        if redraw or size != self._size or now - self._cleared_at > REDRAW_SECONDS:
            self._lines, self._size, self._cleared_at = (), size, now
            text = _CLEAR_SCREEN
        pairs = zip_longest(self._lines, lines, fillvalue=())
        text += "".join(self._changed(row, old, new) for row, (old, new) in enumerate(pairs))
        self._lines = lines
        if text:
            self._output.write(text)
            self._output.flush()

    def _changed(self, row: int, old: Line, new: Line) -> str:
        """Return the control sequences that turn a line into another, from the first span that differs."""
        same = next((at for at, both in enumerate(zip_longest(old, new)) if both[0] != both[1]), None)
        if same is None:
            return ""
        column = sum(width(text) for text, _ in new[:same])
        return f"\x1b[{row + 1};{column + 1}H{_CLEAR_TO_END}{self._styled(new[same:])}"

    def _styled(self, line: Line) -> str:
        from rich.text import Text

        with self._console.capture() as captured:
            self._console.print(Text.assemble(*line), end="", no_wrap=True, overflow="crop", crop=True)
        return captured.get()


@contextlib.contextmanager
def _without_echo(output: Output) -> Iterator[None]:
    """Turn the echo off, and discard typed input at the end, so that the shell does not run it."""
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
