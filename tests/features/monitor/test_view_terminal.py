"""The display of the dashboard for each stream, the bytes for a terminal, and the restored terminal."""

from __future__ import annotations

import io
import os
import re
import select
import termios

import pytest

from rolling_upgrade.features.monitor.dashboard import Dashboard, MonitoredHost, update
from rolling_upgrade.features.monitor.view import display
from tests.support.builders import NOW, Terminal
from tests.support.reports import report

SCREEN = {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
EMPTY = Dashboard("production", (MonitoredHost("web1", 10), MonitoredHost("web2", 10)))
SEEN, EVENTS = update(EMPTY, "web1", report(chain="502"), NOW)


class Clock:
    """Unix seconds that change only when a test sets them."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def test_display_restores_the_terminal_after_an_interrupt() -> None:
    stream = Terminal()

    def interrupted() -> None:
        with display(stream, environ=SCREEN) as shown:
            shown.tick(EMPTY)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert stream.getvalue().startswith("\x1b[?1049h")
    assert stream.getvalue().endswith("\x1b[?25h\x1b[?1049l")


def test_display_sends_only_changes() -> None:
    stream, clock = Terminal(), Clock()
    with display(stream, environ=SCREEN, clock=clock) as shown:
        shown.tick(SEEN)
        first = len(stream.getvalue())
        shown.tick(SEEN)
        assert len(stream.getvalue()) == first
        clock.now += 1
        shown.tick(SEEN)
        again = stream.getvalue()[first:]

    # The clock at the top, and the age of web1's report.
    assert re.findall(r"\x1b\[(\d+);\d+H", again) == ["1", "4"]
    assert "1s" in again
    assert len(again) < 100


def test_display_redraws_on_request_and_periodically() -> None:
    stream, clock = Terminal(), Clock()
    with display(stream, environ=SCREEN, clock=clock) as shown:
        shown.tick(EMPTY)
        shown.tick(EMPTY, redraw=True)
        clock.now += 31
        shown.tick(EMPTY)

    assert stream.getvalue().count("\x1b[H\x1b[2J") == 3
    assert stream.getvalue().count("STATUS") == 3


def test_display_clears_removed_lines() -> None:
    stream, clock = Terminal(), Clock()
    with display(stream, environ=SCREEN, clock=clock) as shown:
        shown.tick(SEEN)
        first = len(stream.getvalue())
        shown.tick(EMPTY)

    # web1 has lost its two lines of details and the events moved up.
    assert re.findall(r"\x1b\[(\d+);1H\x1b\[K(?=\x1b)", stream.getvalue()[first:])


@pytest.mark.parametrize(
    ("environ", "colored"), [(SCREEN, True), ({**SCREEN, "NO_COLOR": "1"}, False)], ids=["colors", "no colors"]
)
def test_display_has_colors_unless_no_color_is_set(environ: dict[str, str], colored: bool) -> None:
    stream = Terminal()
    with display(stream, environ=environ, clock=Clock()) as shown:
        shown.tick(SEEN)

    assert bool(re.search(r"\x1b\[[\d;]*3\dm", stream.getvalue())) is colored
    assert "✗ " in stream.getvalue()


@pytest.mark.parametrize(
    ("stream", "environ"),
    [(io.StringIO(), SCREEN), (Terminal(), {"TERM": "dumb"}), (Terminal(), {**SCREEN, "CI": "true"})],
    ids=["a pipe", "a dumb terminal", "CI"],
)
def test_display_without_a_terminal_writes_only_lines(stream: io.StringIO, environ: dict[str, str]) -> None:
    with display(stream, ("hunter22",), environ, Clock()) as shown:
        shown.tick(SEEN)
        shown.show_check(SEEN, "web1", EVENTS)

    lines = stream.getvalue().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "web1  ✗ full chain FAILED: HTTP 502",
        "web1  FAILED: full chain  backend blue v1",
    ]
    assert "\x1b" not in stream.getvalue()


def test_display_real_terminal_has_no_echo_and_is_restored() -> None:
    leader, follower = os.openpty()
    try:
        with os.fdopen(os.dup(follower), "w") as stream:
            before = termios.tcgetattr(follower)
            with display(stream, environ=SCREEN) as shown:
                shown.tick(SEEN)
                assert not termios.tcgetattr(follower)[3] & termios.ECHO
                os.write(leader, b"typed ahead\n")
                assert select.select([follower], [], [], 30)[0], "the kernel has not handed the line on"
            assert termios.tcgetattr(follower) == before
            os.set_blocking(follower, False)
            with pytest.raises(BlockingIOError):
                os.read(follower, 100)
    finally:
        os.close(leader)
        os.close(follower)


def test_display_is_closed_after_the_terminal_hung_up() -> None:
    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as stream, display(stream, environ=SCREEN) as shown:
        os.close(leader)
        shown.tick(SEEN)
        assert shown.closed
