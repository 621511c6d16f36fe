"""Progress of a transfer: a bar on a terminal, lines in a log, numbers in JSON."""

from __future__ import annotations

import io
import json

import pytest

from rolling_upgrade.console.live import Board
from rolling_upgrade.console.output import Output
from rolling_upgrade.console.reporter import PlainReporter, make_reporter
from rolling_upgrade.console.screen import RowState
from rolling_upgrade.console.text import bar, progress
from rolling_upgrade.engine.model import Event, Phase
from tests.support.builders import NOW, Terminal


def transfer(sent: int, seconds: float, host: str = "web1") -> Event:
    return Event(NOW + seconds, Phase.PROGRESS, "push", host, "push", seconds, sent=sent, total=65_100_000)


@pytest.mark.parametrize(
    ("sent", "total", "seconds", "words"),
    [
        (12_400_000, 65_100_000, 2, "12.4 of 65.1 MB, 19%, 6.2 MB/s"),
        (0, 65_100_000, 0, "0.0 of 65.1 MB, 0%"),
        (0, 0, 0, "0.0 of 0.0 MB, 100%"),
        (70_000_000, 65_100_000, 7, "70.0 of 65.1 MB, 100%, 10.0 MB/s"),
    ],
)
def test_progress_shows_bytes_share_and_rate(sent: int, total: int, seconds: float, words: str) -> None:
    assert progress(sent, total, seconds) == words


@pytest.mark.parametrize(("sent", "full"), [(0, 0), (50, 10), (99, 19), (100, 20), (101, 20)])
def test_bar_is_proportional_to_the_bytes_sent(sent: int, full: int) -> None:
    assert bar(sent, 100) == "█" * full + "░" * (20 - full)


def test_board_shows_the_bar_in_the_hosts_row() -> None:
    board = Board()

    board.apply(transfer(12_400_000, 2))

    (row,), _ = board.visible(5)
    assert row.title == "███░░░░░░░░░░░░░░░░░ 12.4 of 65.1 MB, 19%, 6.2 MB/s"
    assert (row.step, row.state, row.done) == ("push", RowState.RUNNING, 0)


def test_plain_reports_progress_every_few_seconds_for_each_host() -> None:
    stream = io.StringIO()
    plain = PlainReporter(Output(stream, ()))

    for number in range(41):
        for host in ("web1", "web2"):
            plain.event(transfer(number * 1_000_000, number / 4, host))

    assert [line.split(maxsplit=1)[1] for line in stream.getvalue().splitlines()] == [
        "web1  push  20.0 of 65.1 MB, 30%, 4.0 MB/s",
        "web2  push  20.0 of 65.1 MB, 30%, 4.0 MB/s",
        "web1  push  40.0 of 65.1 MB, 61%, 4.0 MB/s",
        "web2  push  40.0 of 65.1 MB, 61%, 4.0 MB/s",
    ]


def test_json_progress_has_the_bytes() -> None:
    stream = io.StringIO()

    make_reporter(json=True, stream=stream).event(transfer(12_400_000, 2))

    event = json.loads(stream.getvalue())
    assert (event["phase"], event["sent"], event["total"]) == ("progress", 12_400_000, 65_100_000)


def test_live_progress_prints_nothing_above_the_table() -> None:
    stream = Terminal()

    with make_reporter(stream=stream, environ={"TERM": "xterm"}) as live:
        live.event(transfer(12_400_000, 2))
        live.event(transfer(20_000_000, 3))

    assert stream.getvalue().count("12.4 of 65.1 MB") <= 1
