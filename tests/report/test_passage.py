"""The report of a run: what it changed, how it passed, what came before, in values and in lines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fabfile.model import Outcome, Stage
from fabfile.report.history import Told
from fabfile.report.passage import newest, told_of
from fabfile.report.passage_lines import passage_lines
from fabfile.report.requests import Requests
from tests.report.passages import AT, BAD, FIRST, LOAD, SECOND, passage


def test_told_of_good_run_says_what_changed_and_how_to_go_back() -> None:
    told = told_of(passage())

    assert (told["outcome"], told["undo"], told["key_of"]) == ("good", "inv rollback --env production", "ann-laptop")
    (change,) = told["hosts"][0]["changes"]
    assert (change["image_changed"], change["configuration_changed"]) == (True, False)
    assert (change["before"]["image"][-2:], change["after"]["image"][-2:]) == ("v1", "v2")
    assert [stage["seconds"] for stage in told["hosts"][0]["stages"]] == [0.4, 2.5, 1.0]


@pytest.mark.parametrize("run", [FIRST, BAD])
def test_told_of_run_that_is_not_the_last_good_one_has_no_way_back(run: object) -> None:
    releases = (FIRST, SECOND, BAD)
    wanted = FIRST if run is FIRST else BAD

    assert told_of(passage(wanted, told={"web1": Told(releases)}))["undo"] == ""


def test_told_of_first_run_changed_nothing_that_was_there() -> None:
    (change,) = told_of(passage(FIRST))["hosts"][0]["changes"]

    assert (change["before"], change["image_changed"]) == (None, True)


def test_told_of_rollback_goes_back_to_what_it_left() -> None:
    back = replace(FIRST, id="20261124T110000Z-dddddd", action="rollback", left=SECOND.id)

    told = told_of(passage(back, told={"web1": Told((FIRST, SECOND, back))}))

    assert told["undo"] == f"inv rollback --env production --to {SECOND.id}"


def test_told_of_hosts_that_differ_counts_the_worst() -> None:
    bad = replace(SECOND, outcome=Outcome.UNDO_FAILED)

    told = told_of(passage(told={"web1": Told((FIRST, SECOND)), "web2": Told((FIRST, bad)), "web3": Told((FIRST,))}))

    assert (told["outcome"], told["not_in_it"]) == ("undo-failed", ["web3"])
    assert [run["outcome"] for run in told["runs"]] == ["good", "undo-failed"]


def test_told_of_good_end_that_was_undone_afterwards_is_undone() -> None:
    undone = replace(SECOND, outcome=Outcome.UNDONE)

    assert told_of(passage(told={"web1": Told((FIRST, SECOND, undone))}))["outcome"] == "undone"


def test_told_of_requests_are_counted_around_each_cutover() -> None:
    requests = told_of(passage(requests=LOAD))["requests"]

    assert (requests["whole"]["requests"], requests["whole"]["failed"]) == (300, 2)
    (near,) = requests["cutovers"]
    assert (near["host"], near["requests"], near["failed"]) == ("web1", 250, 2)


def test_newest_run_is_that_of_any_host() -> None:
    assert newest([Told((FIRST,)), Told((FIRST, SECOND)), Told(())]) == SECOND.id
    assert newest([]) == ""


@pytest.mark.parametrize("line", ["x", "[]", "3", "{}", '{"at": "x", "ms": 1, "ok": true}', '{"at": 1, "ok": true}'])
def test_requests_line_that_is_none_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="line 2 is no request"):
        Requests.read(['{"at": 1, "ms": 2, "ok": true}\n', line])


def test_requests_percentiles_leave_failures_out() -> None:
    rows = [
        f'{{"at": {number}, "ms": {number}, "ok": {"true" if number < 100 else "false"}}}' for number in range(1, 101)
    ]

    assert Requests.read(rows).figures(0, 200) == {"requests": 100, "failed": 1, "p50_ms": 50.0, "p99_ms": 99.0}


def test_lines_of_a_good_run() -> None:
    rows = passage_lines(told_of(passage()))

    assert rows[0] == f"deploy {SECOND.id} on production: good (12.5s)"
    assert "  backend  image  backend:v1 (aaaaaaaaaaaa) → backend:v2 (bbbbbbbbbbbb)" in rows
    assert "  +0.5s  backend.start    2.5s" in rows
    assert rows[-1] == "To go back:\ninv rollback --env production"


def test_lines_of_a_bad_run_have_the_last_words() -> None:
    rows = passage_lines(told_of(passage(BAD)))

    assert "because backend: the gate failed" in rows
    assert rows[rows.index("  last words of backend.start") + 1 :][:2] == ["    | it said", "    | 503"]


def test_lines_say_what_is_missing() -> None:
    rows = passage_lines(
        told_of(
            passage(stages={"web1": ()}, lost={"web2": "timed out"}, told={"web1": Told((FIRST, SECOND), ((1, "x"),))})
        )
    )

    assert "  the journal of this run is gone: a host keeps that of its last 20 runs" in rows
    assert "web2  NOT REACHED: timed out" in rows
    assert any("NOT WHOLE" in row for row in rows)


def test_lines_step_without_an_end_says_so() -> None:
    rows = passage_lines(told_of(passage(stages={"web1": (Stage("pull", AT),)})))

    assert "  +0.0s  pull  no end  status unknown" in rows
