"""`inv full` from the build to the watchdog: the first failed phase stops it and sets its exit code; the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rolling_upgrade.engine.model import Environment, Lock, Pipeline
from rolling_upgrade.errors import ConfigError, ExitCode, LockHeld, PreflightError
from rolling_upgrade.features.full.workflow import PhaseOutcome, Phases, full, phase_lines, write_report
from tests.support.image_builds import PUSHED, add_source, commands, fail
from tests.support.project import ENV, Project
from tests.support.shell import Programs
from tests.support.simulated_fleet import DIGESTS, READ_ONLY, SimulatedFleet


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


PHASES = ["build", "test", "push", "deploy", "health", "monitor"]
SUITES = """
suites:
  - {kind: unit, command: 'echo "tests $IMAGE_BACKEND with $KEY"; test ! -e fail', env: {KEY: SECRET}, folder: deploy}
  - {kind: load, command: echo pressed}
""".replace("SECRET", ENV["JWT_SECRET_KEY"])


@pytest.fixture
def pipeline(
    project: Project, fleet: SimulatedFleet, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """A project with two suites, whose backend is built here and whose frontend is built elsewhere."""
    monkeypatch.delenv("DEPLOY_SSH_KEY", raising=False)
    add_source(project, programs, tmp_path / "backend", monkeypatch)
    project.write("deploy/services.yaml", (project.root / "deploy/services.yaml").read_text() + SUITES)
    return project


def reports(project: Project) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in (project.root / "reports").glob("*.json")]


def results(project: Project) -> dict[str, str]:
    """Return the result of each phase in the only report."""
    (report,) = reports(project)
    return {phase["stage"]: phase["result"] for phase in report["stages"]}


def stopped_at(name: str) -> dict[str, str]:
    """Return the results of the phases of a run that failed at this phase."""
    at = PHASES.index(name)
    return {phase: "done" if number < at else "not run" for number, phase in enumerate(PHASES)} | {name: "failed"}


def test_full_builds_tests_pushes_deploys_checks_and_watches(
    pipeline: Project, fleet: SimulatedFleet, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert full("demo", root=pipeline.root, tag="v9") is ExitCode.DONE

    assert commands(programs, "build", "push") == ["build backend", "push backend"]
    for host in ("web1", "web2"):
        assert fleet.ran(host)[-3:] == ["step record", "health", "watchdog"]
    assert f"memoryark/backend@{PUSHED}" in fleet.text("web1", "step backend.start")
    assert f"memoryark/frontend@{DIGESTS['frontend']}" in fleet.text("web1", "step frontend.start")
    output = capsys.readouterr().out
    assert [line.removeprefix("== ") for line in output.splitlines() if line.startswith("== ")] == PHASES
    assert "unit | tests registry.example.org/memoryark/backend:v9 with ••••••" in output
    assert "full v9 on demo: done (" in output


def test_full_report_has_images_suites_and_hosts_without_secrets(pipeline: Project, fleet: SimulatedFleet) -> None:
    assert full("demo", root=pipeline.root, tag="v9") is ExitCode.DONE

    (report,) = reports(pipeline)
    assert results(pipeline) == dict.fromkeys(PHASES, "done")
    assert (report["outcome"], report["exit_code"], report["tag"]) == ("done", 0, "v9")
    assert [image["digest"] for image in report["images"]] == [PUSHED]
    assert [(suite["name"], suite["result"]) for suite in report["suites"]] == [("unit", "passed"), ("load", "passed")]
    assert [(host["host"], host["result"]) for host in report["deploy"]] == [("web1", "upgraded"), ("web2", "upgraded")]
    assert ENV["JWT_SECRET_KEY"] not in json.dumps(report)


def test_full_dry_run_shows_every_phase_and_runs_only_scripts_that_read(
    pipeline: Project, fleet: SimulatedFleet, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert full("demo", root=pipeline.root, tag="v9", dry_run=True) is ExitCode.DONE

    assert commands(programs, "build", "push") == []
    assert set(fleet.ran()) <= READ_ONLY
    assert reports(pipeline) == []
    output = capsys.readouterr().out
    assert "podman build --tag registry.example.org/memoryark/backend:v9" in output
    assert "unit: sh -c" in output
    assert "unit | " not in output
    assert "backend: push registry.example.org/memoryark/backend:v9" in output
    assert "make sure that the watchdog runs on web1, web2" in output
    assert "full v9 on demo, shown only: done (" in output


def test_full_with_a_failed_build_tests_nothing_and_contacts_no_host(
    pipeline: Project, fleet: SimulatedFleet, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(programs, "build")

    assert full("demo", root=pipeline.root, tag="v9") is ExitCode.FAILED

    captured = capsys.readouterr()
    assert "no such base image" in captured.err
    assert "unit | " not in captured.out
    assert commands(programs, "push") == []
    assert fleet.ran() == []
    assert results(pipeline) == stopped_at("build")


def test_full_with_a_failed_suite_pushes_nothing_and_contacts_no_host(
    pipeline: Project, fleet: SimulatedFleet, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    (pipeline.root / "deploy/fail").touch()

    assert full("demo", root=pipeline.root, tag="v9") is ExitCode.FAILED

    assert commands(programs, "push") == []
    assert fleet.ran() == []
    assert results(pipeline) == stopped_at("test")
    output = capsys.readouterr().out
    assert "load | pressed" in output
    assert "full v9 on demo: stopped at test (" in output


def test_full_with_a_chosen_suite_runs_no_other(
    pipeline: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    (pipeline.root / "deploy/fail").touch()

    assert full("demo", root=pipeline.root, tag="v9", suite="load") is ExitCode.DONE

    assert "unit | " not in capsys.readouterr().out


def test_full_with_a_failed_push_contacts_no_host(pipeline: Project, fleet: SimulatedFleet, programs: Programs) -> None:
    fail(programs, "push")

    assert full("demo", root=pipeline.root, tag="v9") is ExitCode.FAILED

    assert fleet.ran() == []
    assert results(pipeline) == stopped_at("push")


def test_full_with_an_undone_deploy_has_its_exit_code_and_installs_no_watchdog(
    pipeline: Project, fleet: SimulatedFleet
) -> None:
    fleet.fail("web2", "step frontend.cutover", "HTTP 502")

    assert full("demo", root=pipeline.root, tag="v9") is ExitCode.PARTLY_DONE

    assert fleet.ran("web2")[-2:] == ["step undo", "step abandon"]
    assert fleet.ran("web1")[-1] == "step record"
    assert results(pipeline) == stopped_at("deploy")
    (report,) = reports(pipeline)
    assert (report["outcome"], report["exit_code"]) == ("failed", ExitCode.PARTLY_DONE)
    assert [host["result"] for host in report["deploy"]] == ["upgraded", "undone"]
    assert "HTTP 502" in report["deploy"][1]["cause"]


def test_full_with_a_locked_host_changes_no_host(
    pipeline: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    ben = Lock("r9", "ben", "desk", 7, "deploy v3", 1000, 4_000_000_000)
    fleet.states["web2"] = replace(fleet.states["web2"], lock=ben)

    assert full("demo", root=pipeline.root, tag="v9") is ExitCode.LOCKED

    assert fleet.changed() == []
    assert results(pipeline) == stopped_at("deploy")
    assert "web2: locked by ben@desk" in capsys.readouterr().err


def test_full_with_an_unhealthy_host_after_the_deploy_fails_and_installs_no_watchdog(
    pipeline: Project, fleet: SimulatedFleet
) -> None:
    fleet.http_codes["web2"] = 502

    assert full("demo", root=pipeline.root, tag="v9") is ExitCode.FAILED

    assert "watchdog" not in fleet.ran()
    assert results(pipeline) == stopped_at("health")


def test_full_that_could_not_ask_for_the_confirmation_builds_nothing(
    pipeline: Project, fleet: SimulatedFleet, programs: Programs
) -> None:
    pipeline.edit("hosts.yaml", "  demo:\n", "  demo:\n    rollout: {confirm: true}\n")

    with pytest.raises(ConfigError, match="requires confirmation, but stdin is not a terminal") as refused:
        full("demo", root=pipeline.root, tag="v9")

    assert refused.value.next_step == "rolling-upgrade full --env demo --force deploys without asking"
    assert commands(programs, "build", "push") == []
    assert (fleet.ran(), reports(pipeline)) == ([], [])


def test_full_with_an_unknown_suite_or_a_bad_deploy_key_builds_nothing(
    pipeline: Project, fleet: SimulatedFleet, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="--suite"):
        full("demo", root=pipeline.root, tag="v9", suite="smoke")
    monkeypatch.setenv("DEPLOY_SSH_KEY", "not a key")
    with pytest.raises(PreflightError, match="rejects the private key in DEPLOY_SSH_KEY"):
        full("demo", root=pipeline.root, tag="v9")

    assert commands(programs, "build", "push") == []
    assert (fleet.ran(), reports(pipeline)) == ([], [])
