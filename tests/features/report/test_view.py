"""The report of a run, as data and as lines."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from rolling_upgrade.engine.history import Fault
from rolling_upgrade.engine.model import Outcome, Release, StepRecord
from rolling_upgrade.features.history.workflow import HostHistory
from rolling_upgrade.features.report.run_report import Figures, Requests, RunRecord, newest, run_report
from rolling_upgrade.features.report.view import report_lines
from tests.support.run_reports import AT, BAD, FIRST, LOAD, SECOND, record


def test_run_report_of_a_good_run_has_changes_and_undo_command() -> None:
    report = run_report(record())

    assert (report.outcome, report.undo, report.key_of) == (
        "good",
        "rolling-upgrade rollback --env production",
        "ann-laptop",
    )
    (change,) = report.hosts[0].changes
    assert (change.image_changed, change.configuration_changed) == (True, False)
    assert change.before is not None
    assert (change.before.image[-2:], change.after.image[-2:]) == ("v1", "v2")
    assert [step.seconds for step in report.hosts[0].steps] == [0.4, 2.5, 1.0]


@pytest.mark.parametrize("run", [FIRST, BAD])
def test_run_report_run_before_the_last_good_one_has_no_undo(run: Release) -> None:
    assert run_report(record(run, histories={"web1": HostHistory((FIRST, SECOND, BAD))})).undo == ""


def test_run_report_first_run_has_no_version_before() -> None:
    (change,) = run_report(record(FIRST)).hosts[0].changes

    assert (change.before, change.image_changed) == (None, True)


def test_run_report_rollback_is_undone_by_the_release_that_it_left() -> None:
    back = replace(FIRST, id="20261124T110000Z-dddddd", action="rollback", left=SECOND.id)

    report = run_report(record(back, histories={"web1": HostHistory((FIRST, SECOND, back))}))

    assert report.undo == f"rolling-upgrade rollback --env production --to {SECOND.id}"


def test_run_report_has_the_worst_outcome_of_its_hosts() -> None:
    bad = replace(SECOND, outcome=Outcome.UNDO_FAILED)

    report = run_report(
        record(
            histories={
                "web1": HostHistory((FIRST, SECOND)),
                "web2": HostHistory((FIRST, bad)),
                "web3": HostHistory((FIRST,)),
            }
        )
    )

    assert (report.outcome, report.hosts_without_run) == ("undo-failed", ("web3",))
    assert [run.outcome for run in report.runs] == ["good", "undo-failed"]


def test_run_report_good_run_that_was_undone_later_is_undone() -> None:
    undone = replace(SECOND, outcome=Outcome.UNDONE)

    assert run_report(record(histories={"web1": HostHistory((FIRST, SECOND, undone))})).outcome == "undone"


def test_run_report_requests_are_counted_around_each_cutover() -> None:
    requests = run_report(record(requests=LOAD)).requests

    assert requests is not None
    assert (requests.total.requests, requests.total.failed) == (300, 2)
    (near,) = requests.cutovers
    assert (near.host, near.requests, near.failed) == ("web1", 250, 2)


def test_newest_run_of_any_host() -> None:
    assert newest([HostHistory((FIRST,)), HostHistory((FIRST, SECOND)), HostHistory(())]) == SECOND.id
    assert newest([]) == ""


@pytest.mark.parametrize("line", ["x", "[]", "3", "{}", '{"at": "x", "ms": 1, "ok": true}', '{"at": 1, "ok": true}'])
def test_requests_read_names_the_invalid_line(line: str) -> None:
    with pytest.raises(ValueError, match="line 2 is not an object"):
        Requests.read(['{"at": 1, "ms": 2, "ok": true}\n', line])


def test_requests_percentiles_exclude_failures() -> None:
    rows = [
        f'{{"at": {number}, "ms": {number}, "ok": {"true" if number < 100 else "false"}}}' for number in range(1, 101)
    ]

    assert Requests.read(rows).figures(0, 200) == Figures(100, 1, 50.0, 99.0)


def test_report_lines_of_a_good_run() -> None:
    rows = report_lines(run_report(record()))

    assert rows[0] == f"deploy {SECOND.id} on production: good (12.5s)"
    assert "  backend  image  backend:v1 (aaaaaaaaaaaa) → backend:v2 (bbbbbbbbbbbb)" in rows
    assert "  +0.5s  backend.start    2.5s" in rows
    assert rows[-1] == "To go back:\nrolling-upgrade rollback --env production"


def test_report_lines_of_a_failed_run_have_the_last_output() -> None:
    rows = report_lines(run_report(record(BAD)))

    assert "because backend: the gate failed" in rows
    assert rows[rows.index("  last output of backend.start") + 1 :][:2] == ["    | it said", "    | 503"]


def test_report_lines_name_missing_parts() -> None:
    rows = report_lines(
        run_report(
            record(
                steps={"web1": ()},
                unreachable={"web2": "timed out"},
                histories={"web1": HostHistory((FIRST, SECOND), (Fault(1, "x"),))},
            )
        )
    )

    assert "  the journal of this run was deleted: a host keeps the journals of its last 20 runs" in rows
    assert "web2  UNREACHABLE: timed out" in rows
    assert any("ALTERED" in row for row in rows)


def test_report_lines_step_without_an_end() -> None:
    rows = report_lines(run_report(record(steps={"web1": (StepRecord("pull", AT),)})))

    assert "  +0.0s  pull  no end  status unknown" in rows


@pytest.mark.parametrize("left", ["x; touch pwned", "$(id)", "a b", "'"])
def test_run_report_undo_is_one_command_for_any_history(left: str) -> None:
    run = replace(SECOND, action="rollback", left=left, target=FIRST.id)
    history = HostHistory((FIRST, run))

    command = run_report(RunRecord("demo", run.id, {"web1": history}, {}, {})).undo

    assert shlex.split(command) == ["rolling-upgrade", "rollback", "--env", "demo", "--to", left]
