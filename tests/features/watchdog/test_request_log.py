"""The request log: every line is counted once, across rotations and truncation."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Color
from rolling_upgrade.features.watchdog import request_log
from rolling_upgrade.features.watchdog.request_log import BOUNDS, Position, RequestCounts, Series, add, read_new
from tests.support.sample import application, backend

APP = application()
LINE = "shop_backend_blue/200/0.012\n"
LATER = 4_000_000_000.0


class Log:
    """A log that Nginx writes, and its counts; `now` is long after each write unless a test says otherwise."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "requests.log"
        self.counts = RequestCounts()
        self.read()

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

    def read(self, now: float = LATER) -> int:
        """Read the new lines; return the number of requests counted so far."""
        self.counts = read_new(self.counts, APP, self.path, now)
        return sum(sum(series.codes) for series in self.counts.series)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_requests_of_a_log_created_later_are_counted_from_its_first_line(log: Log) -> None:
    log.write(LINE * 3)

    assert (log.read(), log.read()) == (3, 3)


def test_requests_before_the_first_reading_are_not_counted(tmp_path: Path) -> None:
    (tmp_path / "requests.log").write_text(LINE * 5)
    log = Log(tmp_path)

    log.write(LINE)

    assert log.read() == 1


def test_requests_incomplete_line_waits_for_its_end(log: Log) -> None:
    log.write(LINE + LINE[:9])
    assert log.read() == 1
    log.write(LINE[9:])
    assert (log.read(), log.counts.errors) == (2, 0)


def test_requests_of_a_rotated_log_are_read_to_its_end_first(log: Log) -> None:
    log.write(LINE)
    log.read()
    log.write(LINE)
    log.rotate()
    log.write(LINE)
    log.rotate()
    log.write(LINE)

    assert (log.read(), log.counts.errors) == (4, 0)


def test_requests_that_a_worker_flushes_into_the_renamed_log_are_counted(log: Log) -> None:
    """A worker flushes its buffer a moment after the rotation, before it opens the new log."""
    log.write(LINE)
    log.rotate()
    log.write(LINE)
    just_after = log.file(1).stat().st_mtime + 0.5
    assert log.read(just_after) == 1
    log.write(LINE, 1)

    assert log.read() == 3


def test_requests_of_a_log_that_was_rotated_away_are_lost_and_counted_as_an_error(log: Log) -> None:
    log.write(LINE)
    log.read()
    with ExitStack() as held:
        for _ in range(6):
            # While a file is open nowhere, the next one may get its inode.
            held.enter_context(log.path.open())
            log.rotate()
            log.write(LINE)
        assert (log.read(), log.counts.errors) == (1 + 5, 1)


def test_requests_of_a_truncated_log_are_read_from_its_start(log: Log) -> None:
    log.write(LINE * 4)
    log.read()
    log.path.write_text(LINE)

    assert log.read() == 5


def test_requests_reading_is_bounded_and_continues(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "BYTES_PER_OBSERVATION", 100)
    log.write(LINE * 10)

    assert (log.read(), log.read(), log.read(), log.read()) == (3, 6, 9, 10)


def test_requests_malformed_data_is_counted_as_an_error_and_skipped(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "BYTES_PER_OBSERVATION", 1000)
    monkeypatch.setattr(request_log, "_BLOCK", 100)
    log.write("\0" * 5000)
    for _ in range(5):
        log.read()
    log.write(f"\nnonsense\n{LINE}")

    assert (log.read(), log.counts.errors) == (1, 5 + 1 + 1)


def test_requests_of_an_unreadable_log_raise(log: Log) -> None:
    log.path.mkdir()

    with pytest.raises(OSError, match="directory"):
        log.read()


def test_add_counts_each_line_in_its_bucket() -> None:
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

    series = {(counted.service, counted.color): counted for counted in found}
    green = series["backend", Color.GREEN]
    assert errors == 4
    assert green.codes == (1, 3, 1, 0, 1)
    assert (green.classes[0], green.classes[1], green.classes[-1], sum(green.classes)) == (2, 1, 1, 4)
    assert green.seconds == pytest.approx(0.01 + 0.006 + 11)
    assert series["frontend", Color.BLUE].codes == (0, 0, 0, 1, 0)
    assert series["frontend", Color.GREEN] == Series("frontend", Color.GREEN)
    assert len(green.classes) == len(BOUNDS) + 1


def test_add_distinguishes_applications_with_a_common_prefix() -> None:
    app = application(backend(name="b"), name="shop-a", full_chain=None)

    found, errors = add((), app, {b"shop_a_b_blue/200/0.1": 1, b"shop_a-b_blue/200/0.1": 5})

    assert (sum(sum(series.codes) for series in found), errors) == (1, 0)


def test_position_is_the_end_of_the_last_complete_line(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(LINE)
    log.read()

    assert log.counts.position == Position(log.path.stat().st_ino, len(LINE))
