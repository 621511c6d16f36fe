"""The task `test`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ON_PROCESSES, exit_with, isolated, root, task


@task(
    name="test",
    help={
        "env": "environment passed to the suites; default: DEPLOY_ENV, if set",
        "suite": "unit, integration, load or all; default: all",
    },
)
def run_suites(
    context: Any,  # noqa: ARG001
    env: str | None = None,
    suite: str = "all",
) -> None:
    """Run the application's test suites that services.yaml declares; exits with 1 if one failed."""
    from rolling_upgrade.features.suites import workflow

    exit_with(lambda: isolated(workflow.run_suites)(env, root=root(), suite=suite), interrupted=ON_PROCESSES)
