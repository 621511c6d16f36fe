"""Deploys as CI jobs on real hosts, with the SSH key in the environment: summary and annotations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deploy.conftest import PROJECT, TASK_SECONDS, Site


def job(site: Site, directory: Path, *words: str) -> tuple[int, str, str]:
    """Run a job that has the lab's key only in DEPLOY_SSH_KEY. Return its exit code, log and summary."""
    inventory = site.directory / "hosts.yaml"
    content = yaml.safe_load(inventory.read_text())
    del content["environments"][site.lab.name]["identity_file"]
    inventory.write_text(yaml.safe_dump(content))
    summary = directory / "summary.md"
    environment = {
        **{key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"},
        "CI": "true",
        "HOME": str(directory),
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(summary),
        "DEPLOY_SSH_KEY": (site.directory / "id_ed25519").read_text(),
    }
    done = subprocess.run(
        [sys.executable, "scripts/job.py", words[0], "--env", site.lab.name, *words[1:]],
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TASK_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout, summary.read_text()


def test_job_deploys_with_the_key_of_its_environment(site: Site, tmp_path: Path) -> None:
    code, log, summary = job(site, tmp_path, "deploy", "--tag", "v2", "--force")

    assert code == 0, log
    assert "web1 backend.cutover done" in log
    assert "| web1 | upgraded |" in summary
    assert f"To go back: `inv rollback --env {site.lab.name}`" in summary
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["summary.md"]


@pytest.mark.extended
def test_job_of_a_broken_release_fails_with_an_annotation(site: Site, tmp_path: Path) -> None:
    code, log, summary = job(site, tmp_path, "deploy", "--tag", "v3-broken", "--force")

    assert code == 1, log
    assert log.count("::error title=inv deploy failed::") == 1
    assert "| web1 | undone |" in summary
