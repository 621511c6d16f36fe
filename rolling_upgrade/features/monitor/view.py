"""The dashboard as a full screen of any size on a terminal, and as lines for any other output."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from rolling_upgrade.console.output import Output, is_live
from rolling_upgrade.console.screen import FullScreen, Line, RowState, Span
from rolling_upgrade.console.text import clock_time, count, duration, fit, one_line, sparkline, width
from rolling_upgrade.features.monitor.dashboard import (
    Dashboard,
    HostEvent,
    MonitoredHost,
    active_versions,
    host_status,
    latency,
    notices,
)

_GAP = "  "
_NOW, _SEEN = 8, 6
_LONGEST_NAME, _NARROWEST, _WIDEST_SPARKLINE = 20, 40, 60
#: Lines around the hosts and the events, and the number of events that take precedence over details of hosts.
_FRAME, _EVENTS = 5, 5


@dataclass(frozen=True)
class View:
    """The size of the screen, the present time in Unix seconds, and the function that makes text safe to show."""

    columns: int
    rows: int
    now: float
    safe: Callable[[str], str]

    def text(self, text: str) -> str:
        """Return the text on one line, safe to show."""
        return one_line(self.safe(text))

    def status(self, host: MonitoredHost) -> tuple[RowState, str]:
        """Return the present state of a host and the text of its row."""
        state, text = host_status(host, self.now)
        return state, self.text(text)


def screen_lines(board: Dashboard, view: View) -> list[Line]:
    """Return at most as many lines as the screen has rows.

    A short screen loses details first, those of healthy hosts before others, and then the least urgent hosts.
    """
    room = view.rows - _FRAME
    blocks = _blocks(board, view, max(room, 1))
    lines = [_title(board, view), (), _headings(board, view), *blocks]
    left = view.rows - len(lines) - 2
    if left > 0:
        lines += [(), (("EVENTS", "bold"),), *_events(board, view, left)]
    return [_cut(line, view.columns) for line in lines[: view.rows]]


def _cut(line: Line, columns: int) -> Line:
    """Return the part of the line that fits a terminal narrower than the layout."""
    spans: list[Span] = []
    for text, style in line:
        left = columns - sum(width(shown) for shown, _ in spans)
        spans.append((text if width(text) <= left else fit(text, left), style))
    return tuple(spans)


def _title(board: Dashboard, view: View) -> Line:
    states = [view.status(host)[0] for host in board.hosts]
    unhealthy = sum(state in (RowState.FAILED, RowState.UNREACHABLE) for state in states)
    waiting = RowState.WAITING in states
    verdict = f"{unhealthy} UNHEALTHY" if unhealthy else "connecting" if waiting else "all healthy"
    name = f"{view.text(board.environment)}: {count(len(states), 'host')}, "
    end = f"{clock_time(view.now)}  Ctrl-C quits"
    gap = max(view.columns - width(name) - width(verdict) - width(end), 2)
    return (
        (name, "bold"),
        (verdict, (RowState.FAILED if unhealthy else RowState.HEALTHY).style),
        (" " * gap, ""),
        (fit(end, view.columns - gap - width(name + verdict)), "dim"),
    )


@dataclass(frozen=True)
class _Columns:
    name: int
    status: int
    sparkline: int


def _columns(board: Dashboard, view: View) -> _Columns:
    """Return the widths of the columns; status and sparkline share the rest of the screen, 2 to 1."""
    name = min(max((width(view.text(host.host)) for host in board.hosts), default=4), _LONGEST_NAME)
    name = max(name, len("HOST"))
    left = max(view.columns, _NARROWEST) - len("● ") - name - _NOW - _SEEN - 4 * len(_GAP)
    drawn = min(max(left // 3, 0), _WIDEST_SPARKLINE)
    return _Columns(name, max(left - drawn, 4), drawn)


def _headings(board: Dashboard, view: View) -> Line:
    columns = _columns(board, view)
    cells = (
        fit("HOST", columns.name),
        fit("STATUS", columns.status),
        fit("LATENCY", columns.sparkline),
        "NOW".rjust(_NOW),
        "SEEN".rjust(_SEEN),
    )
    return ((f"  {_GAP.join(cells)}", "dim"),)


def _blocks(board: Dashboard, view: View, room: int) -> list[Line]:
    """Return the lines of the hosts, with as much detail as leaves room for a few events."""
    columns = _columns(board, view)
    states = [view.status(host)[0] for host in board.hosts]
    rows = [[_row(host, columns, view)] for host in board.hosts]
    full = [
        [*row, *_version_lines(host, columns, view), *_detail_lines(host, columns, view)]
        for row, host in zip(rows, board.hosts, strict=True)
    ]
    unhealthy = [full[at] if state is not RowState.HEALTHY else rows[at] for at, state in enumerate(states)]
    events = min(len(board.events), _EVENTS)
    for blocks, spare in ((full, events), (unhealthy, events), (unhealthy, 1), (rows, 0)):
        if sum(map(len, blocks)) + spare <= room:
            return [line for block in blocks for line in block]
    order = sorted(range(len(rows)), key=lambda at: states[at].value)
    shown = sorted(order[: room - 1])
    more: Line = ((f"  … and {count(len(rows) - len(shown), 'more host')}", "dim"),)
    return [*(rows[at][0] for at in shown), more]


def _row(host: MonitoredHost, columns: _Columns, view: View) -> Line:
    state, text = view.status(host)
    newest = host.latencies[-1] if host.latencies else None
    return (
        (f"{state.mark} ", state.style),
        (fit(view.text(host.host), columns.name) + _GAP, "bold"),
        (fit(text, columns.status) + _GAP, state.style),
        (fit(sparkline(host.latencies, columns.sparkline), columns.sparkline) + _GAP, "cyan"),
        ((f"{newest} ms" if newest is not None else "-").rjust(_NOW) + _GAP, ""),
        (_age(host, view.now).rjust(_SEEN), "dim"),
    )


def _age(host: MonitoredHost, now: float) -> str:
    """Return the age of the newest report."""
    if host.report is None:
        return "never"
    seconds = max(int(now - host.checked_at), 0)
    return f"{seconds}s" if seconds < 60 else duration(seconds)


def _version_lines(host: MonitoredHost, columns: _Columns, view: View) -> list[Line]:
    """Return the active version of each service as of the newest report."""
    texts = []
    for version in active_versions(host.report) if host.report is not None else ():
        restarts = f", {count(version.container.restarts, 'restart')}" if version.container else ""
        texts.append(view.text(f"{version.service} {version}{restarts}"))
    indent = len("● ") + columns.name + len(_GAP)
    return [((f"{' ' * indent}{text}", "dim"),) for text in _wrapped(texts, view.columns - indent)]


def _wrapped(texts: Iterable[str], columns: int) -> list[str]:
    """Join the texts, on as many lines as they need."""
    lines: list[str] = []
    for text in texts:
        if lines and width(f"{lines[-1]} · {text}") <= columns:
            lines[-1] = f"{lines[-1]} · {text}"
        else:
            lines.append(fit(text, columns).rstrip())
    return lines


def _detail_lines(host: MonitoredHost, columns: _Columns, view: View) -> list[Line]:
    """Return why a host is unreachable, the results of its failed checks, or a status too long for its column."""
    state, text = view.status(host)
    details: Sequence[str] = ()
    if host.unreachable_since is not None:
        details = (host.error,)
    elif state is RowState.FAILED and host.report is not None:
        checks = [f"{check.name}: {check.detail}" for check in host.report.failed]
        details = [*notices(host.report.state), *checks]
    elif width(text) > columns.status:
        details = (text,)
    indent = len("● ") + columns.name + len(_GAP)
    room = view.columns - indent
    return [((" " * indent, ""), (fit(view.text(detail), room).rstrip(), state.style)) for detail in details]


def _events(board: Dashboard, view: View, room: int) -> list[Line]:
    events = board.events[-room:]
    if not events:
        return [(("none so far", "dim"),)]
    name = min(max((width(view.text(event.host)) for event in events), default=0), _LONGEST_NAME)
    return [_event(event, name, view) for event in events]


def _event(event: HostEvent, name: int, view: View) -> Line:
    start = f"{clock_time(event.at)}  {fit(view.text(event.host), name)}  "
    mark = f"{event.state.mark} "
    room = max(view.columns - width(start) - width(mark), 1)
    return (start, ""), (mark, event.state.style), (fit(view.text(event.title), room).rstrip(), "")


def check_lines(host: MonitoredHost, events: Sequence[HostEvent], view: View) -> list[str]:
    """Return a line for each event of a check, and a line with the host's status, for output without a screen."""
    start = f"{clock_time(view.now)} {view.text(host.host)}  "
    state, text = view.status(host)
    parts = [text]
    if state is RowState.UNREACHABLE:
        parts[0] = f"{text} ({host.error})" if host.error else text
    elif host.report is not None:
        milliseconds = latency(host.report)
        parts += [f"{milliseconds} ms"] if milliseconds is not None else []
        parts += [f"{version.service} {version}" for version in active_versions(host.report)]
    lines = [f"{start}{event.state.mark} {view.text(event.title)}" for event in events]
    return [*lines, start + _GAP.join(view.text(part) for part in parts)]


class Display:
    """An output of the dashboard: a full screen, or without one, lines for each check."""

    def __init__(self, output: Output, clock: Callable[[], float], screen: FullScreen | None = None) -> None:
        self._output, self._clock, self._screen = output, clock, screen

    def show_check(self, board: Dashboard, host: str, events: Sequence[HostEvent]) -> None:
        """Write the lines of a check and of the events that it caused; a screen shows them at the next tick."""
        if self._screen is None:
            view = View(0, 0, self._clock(), self._output.safe)
            self._output.show(check_lines(board.host(host), events, view))

    def tick(self, board: Dashboard, *, redraw: bool = False) -> None:
        """Draw the present state on the screen; `redraw` when another program may have written to it."""
        if self._screen is not None:
            now = self._clock()
            self._screen.draw(
                lambda columns, rows: screen_lines(board, View(columns, rows, now, self._output.safe)), redraw=redraw
            )

    @property
    def closed(self) -> bool:
        """Whether the terminal or pipe is closed."""
        return self._output.closed


@contextlib.contextmanager
def display(
    stream: TextIO,
    secrets: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    clock: Callable[[], float] = time.time,
) -> Iterator[Display]:
    """Open the display for the stream; restore a terminal at the end."""
    output = Output(stream, secrets)
    if not is_live(stream, environ):
        yield Display(output, clock)
        return
    with FullScreen(output, environ, clock).opened() as screen:
        yield Display(output, clock, screen)
