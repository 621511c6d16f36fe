"""Where a dashboard is drawn: the whole screen of a terminal, or a line for each event. It knows no host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Protocol, TextIO, cast

from fabfile.report.dashboard import Dashboard, Happening, Line, Mood, status
from fabfile.report.output import Output
from fabfile.report.reporter import is_live
from fabfile.report.text import clock_time

if TYPE_CHECKING:
    from rich.text import Text

_STYLES = {Mood.PLAIN: "", Mood.GOOD: "green", Mood.BAD: "bold red", Mood.QUIET: "dim"}


class Screen(Protocol):
    """What shows a dashboard; `draw` is called once a second and `looked` once a look."""

    @property
    def gone(self) -> bool: ...
    def __enter__(self) -> Screen: ...
    def __exit__(self, *_: object) -> None: ...
    def draw(self, now: float) -> None: ...
    def looked(self, host: str, happenings: tuple[Happening, ...], now: float) -> None: ...


def choose_screen(dashboard: Dashboard, stream: TextIO, environ: Mapping[str, str], secrets: tuple[str, ...]) -> Screen:
    """The whole screen on a terminal, lines elsewhere."""
    output = Output(stream, secrets)
    return FullScreen(dashboard, output, environ) if is_live(stream, environ) else Lines(dashboard, output)


class Lines:
    """One line a look, one an event: for pipes and logs."""

    def __init__(self, dashboard: Dashboard, output: Output) -> None:
        self._dashboard, self._output = dashboard, output

    @property
    def gone(self) -> bool:
        """Whether nobody reads any more."""
        return self._output.gone

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to put back."""

    def draw(self, now: float) -> None:
        """Lines are written as things happen."""

    def looked(self, host: str, happenings: tuple[Happening, ...], now: float) -> None:
        """Write what happened and how the host is."""
        row = self._dashboard.rows[host]
        took = f"{row.latencies[-1]} ms" if row.latencies and row.latencies[-1] is not None else "-"
        state = f"{clock_time(now)}  {host}  {took}  {status(row, now)}"
        self._output.show([*(one.line for one in happenings), state])


class FullScreen:
    """The alternate screen, redrawn when something on it changed and at most once a second: slow lines keep up."""

    def __init__(self, dashboard: Dashboard, output: Output, environ: Mapping[str, str]) -> None:
        from rich.console import Console
        from rich.live import Live

        self._dashboard, self._output = dashboard, output
        self._console = Console(
            file=cast("IO[str]", output), no_color=bool(environ.get("NO_COLOR")), highlight=False, _environ=environ
        )
        self._live = Live(console=self._console, screen=True, auto_refresh=False)
        self._drawn: tuple[object, ...] = ()

    @property
    def gone(self) -> bool:
        """Whether the terminal went away."""
        return self._output.gone

    def __enter__(self) -> FullScreen:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def draw(self, now: float) -> None:
        """Show what is known now."""
        size = self._console.size
        lines = self._dashboard.lines(size.width, size.height - 1, now)
        if (size, lines) != self._drawn:
            self._drawn = (size, lines)
            self._live.update(self._text(lines), refresh=True)

    def looked(self, host: str, happenings: tuple[Happening, ...], now: float) -> None:
        """The next drawing shows it."""

    def _text(self, lines: list[Line]) -> Text:
        from rich.text import Text

        whole = Text(no_wrap=True, overflow="ellipsis")
        for line in lines:
            whole.append(self._output.safe(line.text) + "\n", _STYLES[line.mood])
        return whole
