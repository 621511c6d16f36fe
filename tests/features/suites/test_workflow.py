"""The application's own test suites, run as real commands: selection, order, environment and results."""

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


def test_run_suites_after_a_failure_continues_and_reports_it(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suites.run_suites("demo", root=project.root) is ExitCode.FAILED

    output = capsys.readouterr().out
    assert [line for line in output.splitlines() if " | " in line] == [
        "load | pressed",
        "unit | one in staging",
        "slow | bad",
    ]
    assert "slow   integration  failed" in output
    assert "slow: status 4" in output


def test_run_suites_of_one_kind_needs_no_environment(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert suites.run_suites(None, root=project.root, suite="load") is ExitCode.DONE
    assert "load | pressed" in capsys.readouterr().out


def test_load_suite_in_production_is_skipped_and_reported(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.env({"ENVIRONMENT": "production"})

    assert suites.run_suites("demo", root=project.root, suite="load") is ExitCode.DONE

    output = capsys.readouterr().out
    assert "load: skipped: load tests do not run against production" in output
    assert "pressed" not in output


@pytest.mark.parametrize("kind", ["", "units", "unit and load"])
def test_run_suites_with_unknown_kind_is_refused(project: Project, kind: str) -> None:
    with pytest.raises(ConfigError, match="--suite"):
        suites.run_suites(None, root=project.root, suite=kind)


def test_select_without_a_matching_suite_is_refused() -> None:
    with pytest.raises(ConfigError, match="no suites of the kind load"):
        suites.select((Suite(SuiteKind.UNIT, ("true",), "/"),), "load")
    with pytest.raises(ConfigError, match="declares no suites"):
        suites.select((), "all")


def test_select_with_missing_directory_is_refused() -> None:
    with pytest.raises(ConfigError, match="no such directory"):
        suites.select((Suite(SuiteKind.UNIT, ("true",), "/nowhere"),), "all")


def test_suite_past_its_timeout_is_stopped_and_missing_command_fails() -> None:
    selected = (
        Suite(SuiteKind.UNIT, ("sleep", "60"), "/", timeout_seconds=0.2),
        Suite(SuiteKind.UNIT, ("/nowhere/at-all",), "/"),
    )

    results = suites.run(selected, lambda _: None, production=False, env={})

    assert [result.result for result in results] == ["timed out", "failed"]
    assert [result.ok for result in results] == [False, False]
    assert "at-all" in results[1].detail


@pytest.mark.parametrize(
    ("production", "load"),
    [(False, "load: k6 run 'a b' in /app"), (True, "load: would be skipped: load tests do not run against production")],
)
def test_suite_plan_lines_in_production_skip_load_suites(production: bool, load: str) -> None:
    selected = (Suite(SuiteKind.UNIT, ("make", "test"), "/app"), Suite(SuiteKind.LOAD, ("k6", "run", "a b"), "/app"))

    assert suites.suite_plan_lines(selected, production=production) == ["unit: make test in /app", load]
