"""The workflow files for GitHub and GitLab: valid by their schemas, pinned, bounded and quoted."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
GITLAB = ROOT / ".gitlab-ci.yml"
#: The longest timeout of a job in minutes.
LONGEST = 60


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["jobs"]
    return content


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in WORKFLOWS:
        for name, job in jobs(path).items():
            yield from ((f"{path.name} {name}", step) for step in job["steps"])


def scripts() -> list[str]:
    """Return every script of the workflows."""
    gitlab = [value for value in yaml.safe_load(GITLAB.read_text()).values() if isinstance(value, dict)]
    github = [step["run"] for _, step in steps() if "run" in step]
    return [*github, *(line for job in gitlab for key in ("before_script", "script") for line in job.get(key, ()))]


def schema(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_github_workflow_matches_its_schema(path: Path) -> None:
    done = schema("--builtin-schema", "vendor.github-workflows", str(path))

    assert done.returncode == 0, done.stdout


def test_gitlab_file_matches_its_schema() -> None:
    done = schema("--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci", str(GITLAB))

    assert done.returncode == 0, done.stdout


def test_github_jobs_have_a_timeout_and_read_only_permissions() -> None:
    for path in WORKFLOWS:
        assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
        assert all(0 < job["timeout-minutes"] <= LONGEST for job in jobs(path).values())


def test_github_actions_are_pinned_to_a_commit() -> None:
    used = [step["uses"] for _, step in steps() if "uses" in step]

    assert used
    assert [action for action in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)] == []


def test_github_scripts_contain_no_expression() -> None:
    # The shell would evaluate the values of inputs.
    assert [(where, step["run"]) for where, step in steps() if "${{" in step.get("run", "")] == []


def test_github_environments_run_one_job_at_a_time_without_cancelling() -> None:
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text())
        for job in workflow["jobs"].values():
            if "environment" in job:
                assert job.get("concurrency", workflow.get("concurrency"))["cancel-in-progress"] is False


def test_github_secrets_go_only_to_jobs_of_an_environment() -> None:
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text())
        for job in workflow.pop("jobs").values():
            assert "environment" in job or "secrets" not in str(job)
        assert "secrets" not in str(workflow), f"{path.name}: every job can read secrets outside of jobs"


def test_jobs_with_secrets_run_no_code_of_the_application() -> None:
    """Code of a pull request or a dependency could read the secrets of its job."""
    own_code = re.compile(r"make \"?(full|build|suites|test)\b")
    for path in WORKFLOWS:
        for name, job in jobs(path).items():
            if "secrets" in str(job) or "environment" in job:
                offered = yaml.safe_load(path.read_text())[True]["workflow_dispatch"]["inputs"].get("task", {})
                assert {"full", "build", "test"} & set(offered.get("options", ())) == set(), f"{path.name} {name}"
                assert not own_code.search(" ".join(step.get("run", "") for step in job["steps"])), (
                    f"{path.name} {name}"
                )
    for name, job in yaml.safe_load(GITLAB.read_text()).items():
        if isinstance(job, dict) and "environment" in job:
            assert not own_code.search(" ".join(job["script"])), name


def test_github_pull_requests_run_without_secrets() -> None:
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text())
        assert "pull_request_target" not in workflow[True]
        assert "workflow_run" not in workflow[True]
        if "pull_request" in workflow[True]:
            assert "secrets" not in path.read_text()


def test_github_tasks_that_change_hosts_replace_their_shell() -> None:
    # A cancelled run signals only the shell of a step, so that the task would be killed before its undo.
    commands = [line.strip() for _, step in steps() for line in step.get("run", "").splitlines() if "make" in line]
    changing = [line for line in commands if re.search(r"make \"?(\$TASK|deploy|promote)", line)]

    assert len(changing) == 3
    assert [line for line in changing if not line.startswith("exec make ")] == []


def test_github_jobs_that_change_hosts_upload_the_report() -> None:
    for path in WORKFLOWS:
        for name, job in jobs(path).items():
            if "environment" in job:
                runs = " ".join(step.get("run", "") for step in job["steps"])
                kept = [step for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
                assert ("report-" in runs, len(kept)) == (True, 1), f"{path.name} {name}"


def test_workflows_run_only_make_targets() -> None:
    # An operator can run everything that CI runs with the same commands.
    lines = [line.strip() for text in scripts() for line in text.splitlines()]
    own = re.compile(r"(exec |\w+=\w+ )?make |case |apt-get ")

    assert [line for line in lines if line and not own.match(line)] == []


def test_make_targets_of_the_workflows_exist() -> None:
    targets = set(re.findall(r"^([a-z%-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = {word.split("-")[0] for text in scripts() for word in re.findall(r"\bmake \"?([$\w-]+)", text)}

    assert {"setup", "check", "deploy", "promote", "report"} <= called
    assert [word for word in called if not {word, f"{word}-%"} & targets and not word.startswith("$")] == []


def test_tasks_of_the_deploy_workflow_have_a_target() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/deploy.yml").read_text())
    options = workflow[True]["workflow_dispatch"]["inputs"]["task"]["options"]
    makefile = (ROOT / "Makefile").read_text()

    assert [task for task in options if f"\n{task}-%: " not in makefile] == []


@pytest.mark.parametrize("text", scripts())
def test_workflow_scripts_pass_shellcheck(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.sh"
    path.write_text(f'#!/usr/bin/env bash\nset -e\n: "${{TASK=}} ${{ENVIRONMENT=}}"\n{text}\n')

    program = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([program, path], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout
