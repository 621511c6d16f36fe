"""The live table, its rows, and the reporter for each stream."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Mapping

import pytest

from rolling_upgrade.console.live import Board, LiveReporter
from rolling_upgrade.console.output import Output
from rolling_upgrade.console.reporter import JsonReporter, PlainReporter, make_reporter
from rolling_upgrade.console.screen import RowState
from rolling_upgrade.engine.model import Event, Phase, Summary
from tests.support.builders import NOW, Terminal, plan

SCREEN = {"TERM": "xterm"}


def board(*events: Event) -> Board:
    made = Board()
    made.expect([plan("web1"), plan("web2")])
    for event in events:
        made.apply(event)
    return made


def step(phase: Phase, at: float = NOW) -> Event:
    return Event(at, phase, "Start green", "web1", "backend.start")


def host(phase: Phase, at: float = NOW) -> Event:
    return Event(at, phase, "detail", "web1")


def screen(reporter_events: list[Event], *, secrets: tuple[str, ...] = (), environ: Mapping[str, str] = SCREEN) -> str:
    stream = Terminal()
    with make_reporter(stream=stream, environ=environ, secrets=secrets) as reporter:
        reporter.plan([plan("web1"), plan("web2")])
        for event in reporter_events:
            reporter.event(event)
        reporter.summary(Summary("deploy", "production", "r2", 0, 12.0, (), undo_command="inv deploy --tag v1"))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("environ", "terminal", "kind"),
    [
        (SCREEN, True, LiveReporter),
        ({**SCREEN, "NO_COLOR": "1"}, True, LiveReporter),
        ({**SCREEN, "CI": "false"}, True, LiveReporter),
        ({**SCREEN, "CI": "true"}, True, PlainReporter),
        ({"TERM": "dumb"}, True, PlainReporter),
        ({}, True, PlainReporter),
        (SCREEN, False, PlainReporter),
    ],
)
def test_choose_returns_the_reporter_for_the_stream(environ: dict[str, str], terminal: bool, kind: type) -> None:
    stream = Terminal() if terminal else io.StringIO()

    assert type(make_reporter(stream=stream, environ=environ)) is kind


def test_choose_json_overrides_a_terminal() -> None:
    assert type(make_reporter(json=True, stream=Terminal(), environ=SCREEN)) is JsonReporter


def test_board_planned_hosts_are_waiting() -> None:
    rows, hidden = board().visible(10)

    assert [(row.host, row.result, row.planned) for row in rows] == [
        ("web1", "waiting", 4),
        ("web2", "waiting", 4),
    ]
    assert hidden == 0


@pytest.mark.parametrize(
    ("events", "state", "result", "done"),
    [
        ([step(Phase.STARTED)], RowState.RUNNING, "running", 0),
        ([step(Phase.STARTED), step(Phase.DONE)], RowState.RUNNING, "running", 1),
        ([step(Phase.FAILED)], RowState.FAILED, "failed at backend.start", 0),
        ([step(Phase.FAILED), step(Phase.UNDOING)], RowState.ATTENTION, "undoing", 0),
        ([host(Phase.STARTED)], RowState.RUNNING, "running", 0),
        ([step(Phase.DONE), host(Phase.DONE)], RowState.HEALTHY, "done", 1),
        ([step(Phase.FAILED), host(Phase.UNDONE)], RowState.ATTENTION, "undone", 0),
        ([step(Phase.FAILED), host(Phase.FAILED)], RowState.FAILED, "failed", 0),
        ([step(Phase.STARTED), host(Phase.NOTE)], RowState.RUNNING, "running", 0),
    ],
)
def test_board_event_updates_its_host(events: list[Event], state: RowState, result: str, done: int) -> None:
    row = board(*events).visible(10)[0][0]

    assert (row.state, row.result, row.done) == (state, result, done)


def test_board_running_step_counts_from_its_start() -> None:
    row = board(step(Phase.STARTED, NOW), step(Phase.DONE, NOW + 5), step(Phase.STARTED, NOW + 6)).visible(10)[0][0]

    assert row.elapsed(NOW + 8) == 2


def test_board_shows_the_step_of_a_group_that_still_runs() -> None:
    other = Event(NOW + 1, Phase.STARTED, "Start green", "web1", "frontend.start")

    row = board(step(Phase.STARTED), other, step(Phase.DONE, NOW + 5)).visible(10)[0][0]

    assert (row.activity, row.elapsed(NOW + 8), row.done) == ("frontend.start  Start green", 7, 1)


def test_board_finished_host_shows_its_total_time() -> None:
    row = board(step(Phase.STARTED, NOW), host(Phase.DONE, NOW + 30)).visible(10)[0][0]

    assert row.elapsed(NOW + 999) == 30


def test_board_event_of_an_unplanned_host_adds_a_row() -> None:
    rows, _ = board(Event(NOW, Phase.STARTED, "x", "web9")).visible(10)

    assert [row.host for row in rows] == ["web1", "web2", "web9"]


def test_board_short_screen_shows_failures_first() -> None:
    made = board(Event(NOW, Phase.FAILED, "x", "web2", "gate"))

    rows, hidden = made.visible(1)

    assert ([row.host for row in rows], hidden) == (["web2"], 1)


def test_live_table_shows_every_host_and_ends_with_the_undo_command() -> None:
    shown = screen([step(Phase.STARTED), step(Phase.DONE), host(Phase.DONE)])

    assert re.search(r"web1 .*detail.*1/4.*done", shown)
    assert re.search(r"web2 .*0/4.*waiting", shown)
    assert shown.splitlines()[-1] == "inv deploy --tag v1"


def test_live_failure_is_printed_above_with_its_log_masked() -> None:
    failed = Event(NOW, Phase.FAILED, "Gate [/red]", "web1", "gate", 3, "token hunter22\x1b]0;evil\x07 [bold]")

    shown = screen([step(Phase.STARTED), failed], secrets=("hunter22",))

    assert "Gate [/red]" in shown
    assert "| token •••••• [bold]" in shown
    assert "evil" not in shown
    assert "hunter22" not in shown


def test_live_with_no_color_draws_without_colors() -> None:
    shown = screen([step(Phase.FAILED)], environ={**SCREEN, "NO_COLOR": "1"})

    assert not re.search(r"\x1b\[[\d;]*3\dm", shown)


def test_live_has_colors_by_default() -> None:
    assert re.search(r"\x1b\[[\d;]*3\dm", screen([step(Phase.FAILED)]))


def test_live_warning_before_the_plan_draws_no_table() -> None:
    stream = Terminal()
    reporter = make_reporter(stream=stream, environ=SCREEN)

    reporter.event(Event(NOW, Phase.NOTE, "warning: a unknown key"))

    assert "warning: a unknown key" in stream.getvalue()
    assert "HOST" not in stream.getvalue()


def test_live_restores_the_cursor_after_an_interrupt() -> None:
    stream = Terminal()

    def broken_off() -> None:
        with make_reporter(stream=stream, environ=SCREEN) as reporter:
            reporter.event(step(Phase.STARTED))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()

    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


def test_live_many_threads_do_not_deadlock() -> None:
    stream = Terminal()
    reporter = LiveReporter(Output(stream), environ=SCREEN)

    def work(name: str) -> None:
        for number in range(30):
            reporter.event(Event(NOW, Phase.STARTED, "x", name, f"step{number}"))
            reporter.event(Event(NOW, Phase.NOTE, "note", name))
            reporter.event(Event(NOW, Phase.DONE, "x", name, f"step{number}"))

    threads = [threading.Thread(target=work, args=(f"web{number}",), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    alive = [thread for thread in threads if thread.is_alive()]
    reporter.close()

    assert alive == []
    assert len(re.findall(r"web7 +step29 .* 30 ", stream.getvalue())) >= 1


def test_live_closed_terminal_does_not_fail_the_run() -> None:
    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as stream:
        output = Output(stream)
        reporter = LiveReporter(output, environ=SCREEN)
        reporter.event(step(Phase.STARTED))
        os.close(leader)

        reporter.event(step(Phase.FAILED))
        reporter.summary(Summary("deploy", "production", "r2", 1, 12.0, ()))

        assert output.closed
