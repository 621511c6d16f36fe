"""The task `full`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import task


@task(
    workflow="full",
    isolated=True,
    help={
        "tag": "tag of the images; default: derived from Git",
        "suite": "unit, integration, load or all; default: all",
        "build-type": "release or debug; default: release",
        "force": "skip the confirmation; build a work tree that differs from its commit",
        "dry-run": "show the plan of every phase; change nothing",
    },
)
def full(
    context: Any,
    env: str | None = None,
    tag: str = "",
    suite: str = "all",
    build_type: str = "",
    force: bool = False,
    dry_run: bool = False,
) -> None:
    """Build, test, push, deploy, check and monitor; stops at the first phase that fails."""
