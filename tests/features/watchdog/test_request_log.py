"""The request log: every line counted once, whatever happens to the file meanwhile."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from fabfile.model import Color
from fabfile.watchdog import requests
from fabfile.watchdog.requests import BOUNDS, Counted, Position, Series, add, read_on
from tests.commands.sample import application, backend

APP = application()
LINE = "shop_backend_blue/200/0.012\n"
LATER = 4_000_000_000.0


class Log:
    """A log that Nginx writes, and what was counted of it; `now` long after each write unless a test says otherwise."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "requests.log"
        self.counted = Counted()
        self.look()

    def write(self, text: str, number: int = 0) -> None:
        with self.file(number).open("a") as file:
            file.write(text)

    def file(self, number: int) -> Path:
        return self.path.with_name(f"requests.log.{number}") if number else self.path

    def rotate(self) -> None:
        for number in range(3, -1, -1):
            if self.file(number).exists():
                self.file(number).replace(self.file(number + 1))
        self.path.touch()

    def look(self, now: float = LATER) -> int:
        """Read on; how many requests were counted so far."""
        self.counted = read_on(self.counted, APP, self.path, now)
        return sum(sum(one.codes) for one in self.counted.series)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_requests_of_a_log_that_came_later_are_counted_from_its_first_line(log: Log) -> None:
    log.write(LINE * 3)

    assert (log.look(), log.look()) == (3, 3)


def test_requests_before_the_first_look_are_not_counted(tmp_path: Path) -> None:
    (tmp_path / "requests.log").write_text(LINE * 5)
    log = Log(tmp_path)

    log.write(LINE)

    assert log.look() == 1


def test_requests_line_without_its_end_waits_for_it(log: Log) -> None:
    log.write(LINE + LINE[:9])
    assert log.look() == 1
    log.write(LINE[9:])
    assert (log.look(), log.counted.errors) == (2, 0)


def test_requests_of_a_rotated_log_are_read_to_their_end_first(log: Log) -> None:
    log.write(LINE)
    log.look()
    log.write(LINE)
    log.rotate()
    log.write(LINE)
    log.rotate()
    log.write(LINE)

    assert (log.look(), log.counted.errors) == (4, 0)


def test_requests_that_a_worker_writes_into_the_renamed_log_are_counted(log: Log) -> None:
    """A worker opens the new log a moment after it is there, and writes what it holds before."""
    log.write(LINE)
    log.rotate()
    log.write(LINE)
    just = log.file(1).stat().st_mtime + 0.5
    assert log.look(just) == 1
    log.write(LINE, 1)

    assert log.look() == 3


def test_requests_of_a_log_that_was_rotated_away_are_lost_and_said(log: Log) -> None:
    log.write(LINE)
    log.look()
    with ExitStack() as held:
        for _ in range(6):
            # While a file is open nowhere, the next one may get its inode.
            held.enter_context(log.path.open())
            log.rotate()
            log.write(LINE)
        assert (log.look(), log.counted.errors) == (1 + 5, 1)


def test_requests_of_a_log_that_was_cut_are_read_from_its_start(log: Log) -> None:
    log.write(LINE * 4)
    log.look()
    log.path.write_text(LINE)

    assert log.look() == 5


def test_requests_reading_is_bounded_and_goes_on(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "BYTES_A_LOOK", 100)
    log.write(LINE * 10)

    assert (log.look(), log.look(), log.look(), log.look()) == (3, 6, 9, 10)


def test_requests_what_is_no_line_is_counted_as_an_error_and_ends(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "BYTES_A_LOOK", 1000)
    monkeypatch.setattr(requests, "_BLOCK", 100)
    log.write("\0" * 5000)
    for _ in range(5):
        log.look()
    log.write(f"\nwhat is this\n{LINE}")

    assert (log.look(), log.counted.errors) == (1, 5 + 1 + 1)


def test_requests_unreadable_log_is_the_callers_to_know(log: Log) -> None:
    log.path.mkdir()

    with pytest.raises(OSError, match="directory"):
        log.look()


def test_add_puts_each_line_into_its_class() -> None:
    lines = {
        b"shop_backend_green/200/0.005": 2,
        b"shop_backend_green/304/0.006": 1,
        b"shop_backend_green/502/11.000": 1,
        b"shop_backend_green/101/3600.1": 1,
        b"shop_backend_green/200/-": 1,
        b"shop_frontend_blue/404/0.000": 1,
        b"shop-two_backend_blue/200/0.1": 9,
        b"shop_gone_blue/200/0.1": 9,
        b"nonsense": 4,
    }

    found, errors = add((), APP, lines)

    series = {(one.service, one.color): one for one in found}
    green = series["backend", Color.GREEN]
    assert errors == 4
    assert green.codes == (1, 3, 1, 0, 1)
    assert (green.classes[0], green.classes[1], green.classes[-1], sum(green.classes)) == (2, 1, 1, 4)
    assert green.seconds == pytest.approx(0.01 + 0.006 + 11)
    assert series["frontend", Color.BLUE].codes == (0, 0, 0, 1, 0)
    assert series["frontend", Color.GREEN] == Series("frontend", Color.GREEN)
    assert len(green.classes) == len(BOUNDS) + 1


def test_add_tells_applications_whose_names_begin_alike_apart() -> None:
    app = application(backend(name="b"), name="shop-a", full_chain=None)

    found, errors = add((), app, {b"shop_a_b_blue/200/0.1": 1, b"shop_a-b_blue/200/0.1": 5})

    assert (sum(sum(one.codes) for one in found), errors) == (1, 0)


def test_position_survives_being_kept(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(LINE)
    log.look()

    assert log.counted.position == Position(log.path.stat().st_ino, len(LINE))
