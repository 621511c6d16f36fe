"""The application's own suites: which run, in which order, with what, and how they end; real commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Suite, SuiteKind
from rolling_upgrade.errors import ConfigError, ExitCode
from rolling_upgrade.features.suites import workflow as suites
from tests.support.project import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that declares a suite of each kind."""
    monkeypatch.delenv("DEPLOY_ENV", raising=False)
    project = Project(tmp_path)
    text = (tmp_path / "deploy/services.yaml").read_text()
    own = """
suites:
  - {kind: load, command: echo pressed}
  - {kind: unit, command: [sh, -c, 'echo "$WHAT in $ENVIRONMENT"'], env: {WHAT: one}, folder: deploy}
  - {kind: integration, name: slow, command: "echo bad; exit 4"}
"""
    project.write("deploy/services.yaml", text + own)
    return project


def test_all_suites_run_whatever_fails_and_the_table_says_so(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suites.run_suites("demo", root=project.root) is ExitCode.FAILED

    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if " | " in line] == [
        "load | pressed",
        "unit | one in staging",
        "slow | bad",
    ]
    assert "slow   integration  failed" in said
    assert "slow: status 4" in said


def test_one_kind_runs_alone_and_needs_no_environment(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert suites.run_suites(None, root=project.root, suite="load") is ExitCode.DONE
    assert "load | pressed" in capsys.readouterr().out


def test_load_is_skipped_for_production_and_said_so(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.env({"ENVIRONMENT": "production"})

    assert suites.run_suites("demo", root=project.root, suite="load") is ExitCode.DONE

    said = capsys.readouterr().out
    assert "load: skipped, production is not put under load" in said
    assert "pressed" not in said


@pytest.mark.parametrize("kind", ["", "units", "unit and load"])
def test_kind_that_there_is_not_is_refused(project: Project, kind: str) -> None:
    with pytest.raises(ConfigError, match="--suite"):
        suites.run_suites(None, root=project.root, suite=kind)


def test_no_suite_of_a_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="no suites of the kind load"):
        suites.select((Suite(SuiteKind.UNIT, ("true",), "/"),), "load")
    with pytest.raises(ConfigError, match="declares no suites"):
        suites.select((), "all")


def test_folder_that_is_missing_is_refused_before_any_runs() -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        suites.select((Suite(SuiteKind.UNIT, ("true",), "/nowhere"),), "all")


def test_suite_that_takes_too_long_is_ended_and_one_that_is_missing_has_failed() -> None:
    heard: list[str] = []
    asked = (
        Suite(SuiteKind.UNIT, ("sleep", "60"), "/", timeout_seconds=0.2),
        Suite(SuiteKind.UNIT, ("/nowhere/at-all",), "/"),
    )

    ran = suites.run(asked, heard.append, production=False, env={})

    assert [one.result for one in ran] == ["timed out", "failed"]
    assert [one.well for one in ran] == [False, False]
    assert "at-all" in ran[1].detail
