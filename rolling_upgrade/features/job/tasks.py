"""The tasks `job.list` and `job.run`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, task


@task(workflow="list_jobs", name="list", help=ONE_OBJECT)
def list_jobs(context: Any, env: str | None = None, hosts: list[str] | None = None, json: bool = False) -> None:
    """List the jobs of each host with their next and last runs; exits with 1 if the last run of one failed."""


@task(workflow="run_job", help={"name": "the job"}, interrupted="the job continues on its host. Next: job.list")
def run(context: Any, env: str | None = None, name: str = "", hosts: list[str] | None = None) -> None:
    """Run a job now on its hosts, with its output, and exit with its exit code."""
