"""Stages up to the first that fails, whose exit code counts; and the report that is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Environment, Pipeline
from rolling_upgrade.errors import ExitCode, LockHeld
from rolling_upgrade.features.build.view import stage_lines
from rolling_upgrade.features.full.stages import Done, Stages, stage_objects, write_report


def stages() -> tuple[Stages, list[str], list[str]]:
    said: list[str] = []
    errors: list[str] = []
    return Stages(said.append, errors.append), said, errors


def held() -> Done:
    raise LockHeld("web1 is locked.", next_step="wait")


def test_stages_after_one_that_failed_are_not_run_and_its_code_counts() -> None:
    run, said, errors = stages()

    run.run("build", lambda: Done(detail="two images"))
    run.run("test", lambda: Done(skipped=True))
    run.run("deploy", held)
    run.run("health", lambda: pytest.fail("must not run"))

    assert [one.result for one in run.results] == ["done", "skipped", "failed", "not run"]
    assert run.code == ExitCode.LOCKED
    assert said == ["== build", "== test", "== deploy"]
    assert errors == ["web1 is locked. Next: wait"]
    lines = stage_lines(run.results, "full v2 on demo", 3)
    assert lines[-1] == "full v2 on demo: stopped at deploy (3.0s)"


def test_stage_that_says_it_failed_stops_the_others() -> None:
    run, _, _ = stages()

    run.run("test", lambda: Done(ExitCode.FAILED, "unit"))

    assert (run.results[0].result, run.code) == ("failed", ExitCode.FAILED)


def test_interrupt_is_noted_and_goes_on() -> None:
    run, _, _ = stages()

    def interrupted() -> Done:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run("build", interrupted)

    assert (run.results[0].result, run.code) == ("interrupted", ExitCode.INTERRUPTED)


def test_report_is_whole_and_holds_no_secret(tmp_path: Path) -> None:
    environment = Environment(
        "demo", (), pipeline=Pipeline(reports=str(tmp_path / "reports")), secrets=("correct-horse",)
    )
    run, _, _ = stages()
    run.run("build", lambda: Done(detail='said "correct-horse" twice'))

    path = write_report(environment, 0, {"stages": stage_objects(run.results)})

    text = Path(path).read_text()
    assert "correct-horse" not in text
    assert json.loads(text)["stages"][0]["result"] == "done"
    assert {one.name for one in (tmp_path / "reports").iterdir()} == {".gitignore", Path(path).name}
    assert Path(path).name.startswith("demo-19700101T000000Z-")


def test_git_ignores_a_folder_of_reports_that_is_new_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for name in ("new", "own"):
        write_report(Environment("demo", (), pipeline=Pipeline(reports=str(tmp_path / name))), 0, {})

    assert (tmp_path / "new" / ".gitignore").read_text() == "*\n"
    assert not (tmp_path / "own" / ".gitignore").exists()
