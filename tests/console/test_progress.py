"""Progress of a step: a text or a bar on a terminal, lines in a log, fields in JSON."""

from __future__ import annotations

import io
import json

import pytest

from rolling_upgrade.console.live import Board, Row
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
        (0, 0, 0, "0.0 MB"),
        (45_100_000, 0, 5, "45.1 MB, 9.0 MB/s"),
        (70_000_000, 65_100_000, 7, "70.0 of 65.1 MB, 100%, 10.0 MB/s"),
    ],
)
def test_progress_shows_bytes_share_and_rate(sent: int, total: int, seconds: float, words: str) -> None:
    assert progress(sent, total, seconds) == words


@pytest.mark.parametrize(("sent", "full"), [(0, 0), (50, 10), (99, 19), (100, 20), (101, 20)])
def test_bar_is_proportional_to_the_bytes_sent(sent: int, full: int) -> None:
    assert bar(sent, 100) == "█" * full + "░" * (20 - full)


def started(step: str, at: float = NOW) -> Event:
    return Event(at, Phase.STARTED, f"title of {step}", "web1", step)


def text(step: str, detail: str, seconds: float = 1) -> Event:
    return Event(NOW + seconds, Phase.PROGRESS, f"title of {step}", "web1", step, seconds, detail)


def row(*events: Event) -> Row:
    board = Board()
    for event in events:
        board.apply(event)
    (row,), _ = board.visible(5)
    return row


def test_board_shows_the_bar_in_the_hosts_row() -> None:
    found = row(started("push"), transfer(12_400_000, 2))

    assert found.activity == "push  ███░░░░░░░░░░░░░░░░░ 12.4 of 65.1 MB, 19%, 6.2 MB/s"
    assert (found.state, found.done) == (RowState.RUNNING, 0)


def test_board_shows_the_bytes_of_a_transfer_of_unknown_size_without_a_bar() -> None:
    received = Event(NOW + 2, Phase.PROGRESS, "pull", "web1", "pull", 2, sent=12_400_000)

    assert row(started("pull"), received).activity == "pull  12.4 MB, 6.2 MB/s"


@pytest.mark.parametrize(
    ("events", "activity"),
    [
        ([started("web.start")], "web.start  title of web.start"),
        ([started("web.start"), text("web.start", "passes 2 of 3")], "web.start  passes 2 of 3"),
        ([started("a"), started("b")], "a; b"),
        ([started("a"), started("b"), text("b", "passes 1 of 3")], "a; b passes 1 of 3"),
        ([started("a"), started("b"), text("a", "x"), text("b", "y"), text("a", "z")], "a z; b y"),
        ([started("a"), started("b"), text("b", "y"), Event(NOW, Phase.DONE, "", "web1", "a")], "b  y"),
        ([started("a"), Event(NOW, Phase.DONE, "A", "web1", "a"), text("a", "too late")], "a  A"),
        ([started("a"), started("b"), Event(NOW, Phase.UNDOING, "U", "web1", "undo")], "undo  U"),
        ([started("a"), started("b"), Event(NOW, Phase.FAILED, "the run", "web1")], "the run"),
    ],
)
def test_board_shows_the_latest_progress_of_each_running_step(events: list[Event], activity: str) -> None:
    assert row(*events).activity == activity


def test_board_counts_from_the_oldest_running_step() -> None:
    both = [started("a", NOW), started("b", NOW + 3)]

    assert row(*both).elapsed(NOW + 5) == 5
    assert row(*both, Event(NOW + 4, Phase.DONE, "", "web1", "a")).elapsed(NOW + 5) == 2


def test_board_step_that_ends_beside_a_failed_one_keeps_the_failure() -> None:
    failed = [started("a"), started("b"), Event(NOW, Phase.FAILED, "A", "web1", "a")]

    found = row(*failed, text("b", "passes 3 of 3"), Event(NOW, Phase.DONE, "B", "web1", "b"))

    assert (found.state, found.result, found.done) == (RowState.FAILED, "failed at a", 1)


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


def test_plain_reports_a_text_at_most_every_five_seconds_for_each_step() -> None:
    stream = io.StringIO()
    plain = PlainReporter(Output(stream, ()))

    for step in ("a", "b"):
        plain.event(started(step))
    for second in range(1, 12):
        plain.event(text("a", f"{12 - second} s left", second))
        plain.event(text("b", f"passes {second} of 12", 0))

    assert [line.split(maxsplit=1)[1] for line in stream.getvalue().splitlines()] == [
        "web1  a  started  title of a",
        "web1  b  started  title of b",
        "web1  a  7 s left",
        "web1  a  2 s left",
    ]


def test_json_progress_has_the_text() -> None:
    stream = io.StringIO()

    make_reporter(json=True, stream=stream).event(text("a", "passes 2 of 3"))

    event = json.loads(stream.getvalue())
    assert (event["phase"], event["step"], event["detail"]) == ("progress", "a", "passes 2 of 3")
    assert "sent" not in event


def test_json_progress_has_the_bytes() -> None:
    stream = io.StringIO()

    make_reporter(json=True, stream=stream).event(transfer(12_400_000, 2))

    event = json.loads(stream.getvalue())
    assert (event["phase"], event["sent"], event["total"]) == ("progress", 12_400_000, 65_100_000)


def test_live_progress_prints_nothing_above_the_table() -> None:
    stream = Terminal()

    with make_reporter(stream=stream, environ={"TERM": "xterm"}) as live:
        live.event(started("push"))
        live.event(transfer(12_400_000, 2))
        live.event(transfer(20_000_000, 3))

    assert stream.getvalue().count("12.4 of 65.1 MB") <= 1


def test_live_table_shows_the_text_of_a_running_step() -> None:
    stream = Terminal()

    with make_reporter(stream=stream, environ={"TERM": "xterm"}) as live:
        live.event(started("web.start"))
        live.event(text("web.start", "passes 2 of 3"))

    assert "web.start  passes 2 of 3" in stream.getvalue()
    assert "    | passes" not in stream.getvalue()
