"""The task `test`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ON_PROCESSES, task


@task(
    workflow="run_suites",
    isolated=True,
    interrupted=ON_PROCESSES,
    name="test",
    help={
        "env": "environment passed to the suites; default: DEPLOY_ENV, if set",
        "suite": "unit, integration, load or all; default: all",
    },
)
def run_suites(context: Any, env: str | None = None, suite: str = "all") -> None:
    """Run the application's test suites that services.yaml declares; exits with 1 if one failed."""
