"""Who gets which form of the dashboard, what is sent to a terminal, and that the terminal is given back."""

from __future__ import annotations

import io
import os
import re
import select
import termios

import pytest

from fabfile.report.dashboard import Dashboard, Watched, looked
from fabfile.report.screen import display
from tests.report.builders import NOW, Terminal
from tests.report.reports import report

SCREEN = {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
EMPTY = Dashboard("production", (Watched("web1", 10), Watched("web2", 10)))
SEEN, FRESH = looked(EMPTY, "web1", report(chain="502"), NOW)


class Clock:
    """Unix seconds that stand still until a test moves them."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def test_display_terminal_is_given_back_when_the_dashboard_breaks_off() -> None:
    stream = Terminal()

    def broken_off() -> None:
        with display(stream, environ=SCREEN) as shown:
            shown.tick(EMPTY)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()

    assert stream.getvalue().startswith("\x1b[?1049h")
    assert stream.getvalue().endswith("\x1b[?25h\x1b[?1049l")


def test_display_sends_again_only_what_changed() -> None:
    stream, clock = Terminal(), Clock()
    with display(stream, environ=SCREEN, clock=clock) as shown:
        shown.tick(SEEN)
        first = len(stream.getvalue())
        shown.tick(SEEN)
        assert len(stream.getvalue()) == first
        clock.now += 1
        shown.tick(SEEN)
        again = stream.getvalue()[first:]

    # The clock above, and how long ago web1 was seen.
    assert re.findall(r"\x1b\[(\d+);\d+H", again) == ["1", "4"]
    assert "1s" in again
    assert len(again) < 100


def test_display_draws_all_anew_when_asked_and_now_and_then() -> None:
    stream, clock = Terminal(), Clock()
    with display(stream, environ=SCREEN, clock=clock) as shown:
        shown.tick(EMPTY)
        shown.tick(EMPTY, anew=True)
        clock.now += 31
        shown.tick(EMPTY)

    assert stream.getvalue().count("\x1b[H\x1b[2J") == 3
    assert stream.getvalue().count("STATUS") == 3


def test_display_lines_that_are_gone_are_cleared() -> None:
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
def test_display_colors_unless_told_not_to(environ: dict[str, str], colored: bool) -> None:
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
def test_display_without_a_terminal_writes_lines_alone(stream: io.StringIO, environ: dict[str, str]) -> None:
    with display(stream, ("hunter22",), environ, Clock()) as shown:
        shown.tick(SEEN)
        shown.look(SEEN, "web1", FRESH)

    lines = stream.getvalue().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "web1  ✗ full chain FAILED: HTTP 502",
        "web1  FAILED: full chain  backend blue v1",
    ]
    assert "\x1b" not in stream.getvalue()


def test_display_real_terminal_has_no_echo_meanwhile_and_is_as_it_was_afterwards() -> None:
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


def test_display_terminal_that_hung_up_is_gone_and_raises_nothing() -> None:
    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as stream, display(stream, environ=SCREEN) as shown:
        os.close(leader)
        shown.tick(SEEN)
        assert shown.gone
