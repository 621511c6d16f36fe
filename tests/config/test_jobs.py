"""Jobs in services.yaml: their fields, their checks, and the hosts on which they run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rolling_upgrade.engine.model import Job, Overlap
from rolling_upgrade.features.configuration.workflow import explain_environment
from tests.support.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def define(project: Project, *jobs: dict[str, object]) -> None:
    path = project.root / "deploy/services.yaml"
    content = yaml.safe_load(path.read_text())
    defaults = {"name": "cleanup", "service": "backend", "schedule": "0 3 * * *", "command": ["./clean", "--all"]}
    content["jobs"] = [defaults | job for job in jobs]
    path.write_text(yaml.safe_dump(content))


def test_job_has_its_defaults(project: Project) -> None:
    define(project, {})

    (job,) = project.application().jobs

    assert job == Job("cleanup", "backend", ("./clean", "--all"), "0 3 * * *", ("*-*-* 03:00:00",), 3600.0)


def test_job_has_its_values(project: Project) -> None:
    changes: dict[str, object] = {"command": "a | b", "timeout_seconds": "2h", "overlap": "replace"}
    changes |= {"entrypoint": [], "schedule": "@hourly"}
    define(project, changes)

    (job,) = project.application().jobs

    assert job.command == ("sh", "-c", "a | b")
    assert (job.timeout_seconds, job.overlap, job.entrypoint) == (7200.0, Overlap.REPLACE, ())
    assert job.calendar == ("*-*-* *:00:00",)


def test_schedule_may_be_an_env_key(project: Project) -> None:
    define(project, {"schedule": "CLEANUP_SCHEDULE"})
    project.env({"CLEANUP_SCHEDULE": "30 4 1 * *"})

    environment = project.load(strict=True)

    assert environment.targets[0].application.jobs[0].calendar == ("*-*-01 04:30:00",)
    project.env({"CLEANUP_SCHEDULE": "at noon"})
    (issue,) = project.issues()
    assert (issue.file, issue.path) == ("deploy/demo.env", "CLEANUP_SCHEDULE")


def test_one_job_runs_on_the_first_host_and_one_on_all(project: Project) -> None:
    define(project, {}, {"name": "everywhere", "hosts": "all"})

    jobs = {target.name: [job.name for job in target.application.jobs] for target in project.load().targets}

    assert jobs == {"web1": ["cleanup", "everywhere"], "web2": ["everywhere"]}


def test_selecting_a_host_does_not_move_a_job(project: Project) -> None:
    define(project, {})

    assert project.load(hosts=("web2",)).targets[0].application.jobs == ()


@pytest.mark.parametrize(
    ("changes", "path", "expected"),
    [
        ({"name": "Clean Up"}, "jobs[0].name", "a lower-case letter"),
        ({"name": "web-blue"}, "jobs[0].name", "without -blue or -green at the end"),
        ({"service": "worker"}, "jobs[0].service", "one of backend, frontend"),
        ({"schedule": "60 * * * *"}, "jobs[0].schedule", "five cron fields"),
        ({"command": []}, "jobs[0].command", "a command"),
        ({"hosts": "two"}, "jobs[0].hosts", "one or all"),
        ({"timeout_seconds": "0s"}, "jobs[0].timeout_seconds", "a duration"),
        ({"overlap": "allow"}, "jobs[0].overlap", "skip or replace"),
        ({"shedule": "x"}, "jobs[0].shedule", "did you mean schedule"),
    ],
)
def test_invalid_job_is_refused(project: Project, changes: dict[str, object], path: str, expected: str) -> None:
    define(project, changes)

    (issue,) = project.issues()

    assert (issue.file, issue.path) == ("deploy/services.yaml", path)
    assert expected in issue.expected


def test_two_jobs_with_one_name_are_refused(project: Project) -> None:
    define(project, {}, {})

    assert [issue.path for issue in project.issues()] == ["jobs[1].name"]


def test_configuration_shows_the_job_on_its_host_only(project: Project) -> None:
    define(project, {})

    hosts = explain_environment("demo", root=project.root).hosts

    assert hosts["web1"].derived["job cleanup"].value == (
        "0 3 * * *: ./clean --all in backend, at most 3600 s, skipped while the last one runs"
    )
    assert "job cleanup" not in hosts["web2"].derived
