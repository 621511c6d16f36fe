"""Events and the summary as lines."""

from __future__ import annotations

import io

import pytest

from rolling_upgrade.console.output import Output
from rolling_upgrade.console.reporter import PlainReporter, result_line
from rolling_upgrade.engine.model import Event, HostResult, HostSummary, Phase, Summary
from tests.support.builders import NOW, plan

pytestmark = pytest.mark.usefixtures("utc")
UNDO = "inv deploy --env production --tag v1.0.0"


def reporter(*secrets: str) -> tuple[PlainReporter, io.StringIO]:
    stream = io.StringIO()
    return PlainReporter(Output(stream, secrets)), stream


def summary(
    *,
    exit_code: int = 0,
    undo_command: str = UNDO,
    hosts: tuple[HostSummary, ...] = (),
    warnings: tuple[str, ...] = (),
) -> Summary:
    return Summary("deploy", "production", "r2", exit_code, 63.2, hosts, "A message.", undo_command, warnings)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            Event(NOW, Phase.STARTED, "Start green", "web1", "backend.start"),
            "backend.start  started  Start green",
        ),
        (Event(NOW, Phase.DONE, "Start green", "web1", "backend.start", 2.11), "backend.start  done 2.1s"),
        (Event(NOW, Phase.FAILED, "Gate", "web1", "backend.gate", 61), "backend.gate  failed 1m 01s  Gate"),
        (Event(NOW, Phase.UNDOING, "Back to blue", "web1", "flip"), "flip  undoing  Back to blue"),
        (Event(NOW, Phase.DONE, "upgraded", "web1", "", 31.2), "done 31.2s  upgraded"),
        (Event(NOW, Phase.NOTE, "lock taken over", "web1"), "lock taken over"),
        (
            Event(NOW, Phase.OUTPUT, "migrate", "web1", "release", 3, "Applying 0001… OK"),
            "release  | Applying 0001… OK",
        ),
    ],
)
def test_event_lines_every_phase_is_one_line_with_its_time(event: Event, line: str) -> None:
    plain, stream = reporter()

    plain.event(event)

    assert stream.getvalue() == f"03:12:45 web1  {line}\n"


def test_event_lines_event_without_a_host_shows_a_dash() -> None:
    plain, stream = reporter()

    plain.event(Event(NOW, Phase.NOTE, "two hosts answer"))

    assert stream.getvalue() == "03:12:45 -  two hosts answer\n"


def test_event_lines_hosts_are_aligned() -> None:
    plain, stream = reporter()
    plain.plan([plan("web1"), plan("database-1")])
    planned = len(stream.getvalue())

    plain.event(Event(NOW, Phase.NOTE, "hello", "web1"))

    assert stream.getvalue()[planned:] == "03:12:45 web1        hello\n"


def test_event_lines_failure_shows_its_log_indented_without_escape_sequences() -> None:
    plain, stream = reporter("hunter22")

    plain.event(
        Event(
            NOW,
            Phase.FAILED,
            "Gate",
            "web1",
            "gate",
            1,
            "\x1b[31mboom\x1b[0m\ntoken hunter22\x1b]0;x\x07\n\n",
        )
    )

    assert stream.getvalue().splitlines()[1:] == ["    | boom", "    | token ••••••"]


def test_event_lines_multi_line_title_becomes_one_line() -> None:
    plain, stream = reporter()

    plain.event(Event(NOW, Phase.NOTE, "first\n03:12:45 web9  forged", "web1"))

    assert stream.getvalue().count("\n") == 1


def test_summary_lines_last_line_is_the_undo_command() -> None:
    plain, stream = reporter()

    plain.summary(summary(warnings=("one", "two")))

    assert stream.getvalue().splitlines()[-1] == UNDO


def test_summary_lines_without_undo_command_has_none() -> None:
    plain, stream = reporter()

    plain.summary(summary(undo_command=""))

    assert "To go back" not in stream.getvalue()


def test_summary_lines_hosts_are_a_table_with_causes_below() -> None:
    plain, stream = reporter()
    hosts = (
        HostSummary(
            "web1",
            HostResult.UNDONE,
            62.13,
            (("backend", "v1.0.0"),),
            "web1/backend: green failed\nlast: 502",
        ),
        HostSummary("web2", HostResult.NOT_STARTED, 0, cause="the batch before it failed"),
    )

    plain.summary(summary(exit_code=1, hosts=hosts))

    assert stream.getvalue().splitlines()[1:7] == [
        "HOST  RESULT       SECONDS  IMAGES",
        "web1  undone       62.1     backend v1.0.0",
        "web2  not-started  0.0      -",
        "web1/backend: green failed",
        "  last: 502",
        "web2: the batch before it failed",
    ]


def test_summary_lines_have_message_and_warnings() -> None:
    plain, stream = reporter()

    plain.summary(summary(warnings=("LOG_LEVL is not known",)))

    assert "\nA message.\nwarning: LOG_LEVL is not known\n" in stream.getvalue()


@pytest.mark.parametrize(
    ("code", "how"),
    [(0, "done"), (5, "manual intervention is required"), (6, "run the same command again"), (42, "exit code 42")],
)
def test_result_line_describes_the_exit_code(code: int, how: str) -> None:
    assert how in result_line(summary(exit_code=code))


def test_event_lines_each_line_of_output_has_its_host_and_step() -> None:
    plain, stream = reporter("hunter2")

    plain.event(Event(NOW, Phase.OUTPUT, "migrate", "web1", "release", 3, "first\n  hunter2\n"))

    assert stream.getvalue() == "03:12:45 web1  release  | first\n03:12:45 web1  release  |   ••••••\n"
