"""The table, the figures and the problems of a round of the demo."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.load import Cause, Kind, LoadResult, Record, Server
from lab.verdict import Command, Phase, Round, problems, summary, table

WEB1, WEB2 = Server("web1", "10.0.0.1"), Server("web2", "10.0.0.2")
PHASES = (
    Phase("v1 serves", 10.0, 20.0, ("v1",)),
    Phase("upgrade to v2", 20.0, 30.0, ("v1", "v2")),
    Phase("v2 serves", 30.0, 40.0, ("v2",)),
    Phase("v3-broken tried and undone", 40.0, 50.0, ("v2",)),
)
UPGRADE = Command("inv deploy --tag v2", 0, 0, 20.0, 30.0)
UNDO = Command("inv deploy --tag v3-broken", 1, 1, 40.0, 50.0)


def answers(at: float, version: str, server: str = "web1") -> list[Record]:
    return [Record(at, 0.01, Kind.KEPT, server, service, version) for service in ("backend", "frontend")]


def good_records() -> list[Record]:
    times = ((5.0, "v1"), (12.0, "v1"), (21.0, "v1"), (28.0, "v2"), (33.0, "v2"), (45.0, "v2"), (51.0, "v2"))
    return [record for server in ("web1", "web2") for at, version in times for record in answers(at, version, server)]


def round_of(*more: Record, records: list[Record] | None = None) -> Round:
    seen = (*(good_records() if records is None else records), *more)
    return Round((WEB1, WEB2), PHASES, PHASES[0], UPGRADE, UNDO, LoadResult(4.0, 50.0, seen, 7, ()))


def test_problems_successful_round_has_none() -> None:
    assert problems(round_of()) == []


@pytest.mark.parametrize(
    "record,message",
    [
        pytest.param(
            Record(25.0, 0.1, Kind.KEPT, "web1", cause=Cause.RESET),
            "1 requests failed: 1 x connection reset",
            id="failure",
        ),
        pytest.param(answers(45.0, "v3-broken")[0], "web1 showed backend v3-broken", id="broken version served"),
        pytest.param(answers(33.0, "v1")[0], "web1 showed backend v1", id="old version after the upgrade"),
    ],
)
def test_problems_one_bad_record_is_named(record: Record, message: str) -> None:
    assert [message in problem for problem in problems(round_of(record))] == [True]


def test_problems_host_without_answers_in_a_phase_is_named() -> None:
    records = [record for record in good_records() if not (record.server == "web2" and 40 <= record.due < 50)]

    assert problems(round_of(records=records)) == [
        "v3-broken tried and undone: the backend on web2 answered nothing",
        "v3-broken tried and undone: the frontend on web2 answered nothing",
    ]


def test_problems_upgrade_that_never_shows_the_new_version_is_named() -> None:
    records = [replace_version(record) if record.due == 28.0 else record for record in good_records()]

    assert "upgrade to v2: the backend on web1 never became v2" in problems(round_of(records=records))


def replace_version(record: Record) -> Record:
    return record._replace(version="v1")


def test_problems_broken_version_that_deployed_is_named() -> None:
    done = replace(round_of(), undo=replace(UNDO, exit_code=0))

    assert problems(done) == ["`inv deploy --tag v3-broken` ended with exit code 0 instead of 1"]


def test_problems_failed_upgrade_is_named_with_the_skipped_steps() -> None:
    done = replace(round_of(), upgrade=replace(UPGRADE, exit_code=1), undo=None)

    assert problems(done) == [
        "`inv deploy --tag v2` ended with exit code 1 instead of 0",
        "v3-broken was not tried, because the upgrade to v2 failed",
    ]


def test_problems_lost_write_is_named() -> None:
    done = round_of()
    done = replace(done, load=replace(done.load, lost=("web1: upload 3: gone",)))

    assert problems(done) == ["1 of 7 acknowledged uploads are lost"]


def test_problems_round_without_writes_is_reported() -> None:
    done = round_of()

    assert problems(replace(done, load=replace(done.load, writes_acknowledged=0))) == ["no upload was acknowledged"]


def test_table_has_every_request_in_exactly_one_row() -> None:
    lines = [line for line in table(round_of()).splitlines() if line.startswith(tuple(row_titles()))]

    assert sum(int(figure(line, 1)) for line in lines) == len(good_records())


def row_titles() -> list[str]:
    return [phase.title for phase in round_of().rows]


def figure(line: str, column: int) -> str:
    """A figure of a row; rows before the first and after the last phase have no seconds."""
    title = next(title for title in row_titles() if line.startswith(title))
    figures = line[len(title) :].split()
    return figures[column] if title in {phase.title for phase in PHASES} else figures[column - 1]


def test_table_shows_the_change_of_version_in_the_upgrade_row() -> None:
    row = next(line for line in table(round_of()).splitlines() if line.startswith("upgrade"))

    assert row.endswith("v1 → v2")


def test_table_names_hosts_where_they_differ() -> None:
    odd = answers(34.0, "v1", "web2")[0]
    row = next(line for line in table(round_of(odd)).splitlines() if line.startswith("v2 serves"))

    assert "web1 backend v2" in row
    assert "web2 backend v2 → v1" in row


def test_summary_of_one_round_has_the_documented_figures() -> None:
    figures = summary([round_of()])

    assert {key: figures[key] for key in ("requests", "failed", "writes_acknowledged", "writes_lost")} == {
        "requests": 28,
        "failed": 0,
        "writes_acknowledged": 7,
        "writes_lost": 0,
    }
    assert (figures["upgrade_seconds"], figures["undo_seconds"]) == (10.0, 10.0)
    assert (figures["p99_ms_steady"], figures["p99_ms_upgrade"]) == (10.0, 10.0)
    assert figures["versions"]["web2"] == {"backend": ["v2"], "frontend": ["v2"]}


def test_summary_of_several_rounds_adds_counts_and_keeps_the_worst_times() -> None:
    slower = replace(round_of(), upgrade=replace(UPGRADE, end=35.0))
    failed = round_of(Record(25.0, 0.1, Kind.KEPT, "web1", cause=Cause.RESET))
    figures = summary([round_of(), slower, failed])

    assert (figures["requests"], figures["failed"], figures["upgrade_seconds"]) == (85, 1, 15.0)
    assert [run["ok"] for run in figures["runs"]] == [True, True, False]
    assert figures["ok"] is False


def test_summary_lists_at_most_twenty_failures() -> None:
    failures = [Record(25.0, 0.1, Kind.KEPT, "web1", cause=Cause.RESET) for _ in range(30)]

    assert len(summary([round_of(*failures)])["failures"]) == 20
