"""The phases of `inv full`: the first failed one stops the run and sets its exit code; the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Environment, Pipeline
from rolling_upgrade.errors import ExitCode, LockHeld
from rolling_upgrade.features.full.workflow import PhaseOutcome, Phases, phase_lines, write_report


def new_phases() -> tuple[Phases, list[str], list[str]]:
    output: list[str] = []
    errors: list[str] = []
    return Phases(output.append, errors.append), output, errors


def fail_on_lock() -> PhaseOutcome:
    raise LockHeld("web1 is locked.", next_step="wait")


def test_phases_after_a_failed_phase_do_not_run_and_its_code_is_the_exit_code() -> None:
    phases, output, errors = new_phases()

    phases.run("build", lambda: PhaseOutcome(detail="two images"))
    phases.run("test", lambda: PhaseOutcome(skipped=True))
    phases.run("deploy", fail_on_lock)
    phases.run("health", lambda: pytest.fail("must not run"))

    assert [record.result for record in phases.records] == ["done", "skipped", "failed", "not run"]
    assert phases.code == ExitCode.LOCKED
    assert output == ["== build", "== test", "== deploy"]
    assert errors == ["web1 is locked. Next: wait"]
    lines = phase_lines(phases.records, "full v2 on demo", 3)
    assert lines[-1] == "full v2 on demo: stopped at deploy (3.0s)"


def test_phase_with_exit_code_stops_the_others() -> None:
    phases, _, _ = new_phases()

    phases.run("test", lambda: PhaseOutcome(ExitCode.FAILED, "unit"))

    assert (phases.records[0].result, phases.code) == ("failed", ExitCode.FAILED)


def test_interrupt_is_recorded_and_raised_again() -> None:
    phases, _, _ = new_phases()

    def interrupted() -> PhaseOutcome:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        phases.run("build", interrupted)

    assert (phases.records[0].result, phases.code) == ("interrupted", ExitCode.INTERRUPTED)


def test_report_is_complete_and_masks_secrets(tmp_path: Path) -> None:
    environment = Environment(
        "demo", (), pipeline=Pipeline(reports=str(tmp_path / "reports")), secrets=("correct-horse",)
    )
    phases, _, _ = new_phases()
    phases.run("build", lambda: PhaseOutcome(detail='said "correct-horse" twice'))

    path = write_report(environment, 0, {"stages": phases.records})

    text = Path(path).read_text()
    assert "correct-horse" not in text
    assert json.loads(text)["stages"][0]["result"] == "done"
    assert {file.name for file in (tmp_path / "reports").iterdir()} == {".gitignore", Path(path).name}
    assert Path(path).name.startswith("demo-19700101T000000Z-")


def test_write_report_creates_gitignore_only_in_a_new_directory(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for name in ("new", "own"):
        write_report(Environment("demo", (), pipeline=Pipeline(reports=str(tmp_path / name))), 0, {})

    assert (tmp_path / "new" / ".gitignore").read_text() == "*\n"
    assert not (tmp_path / "own" / ".gitignore").exists()
