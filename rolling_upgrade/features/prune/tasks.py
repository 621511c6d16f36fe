"""The task `prune`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, task


@task(workflow="prune", long_only=["force"], help=ONE_OBJECT | {"dry-run": "list the deletions; change nothing"})
def prune(
    context: Any,
    env: str | None = None,
    hosts: list[str] | None = None,
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Delete images, containers, configurations, backups and journals past their retention."""
