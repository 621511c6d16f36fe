"""The task `rollback`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import task


@task(
    workflow="rollback",
    help={
        "to": "run id or image tag of the release; default: the last good one that is not running",
        "restore-db": "also restore the database of that release; visitors get a 503 page during the restore",
    },
)
def rollback(
    context: Any,
    env: str | None = None,
    to: str = "",
    restore_db: bool = False,
    hosts: list[str] | None = None,
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Roll back to the image and configuration of the last good release without dropping a request."""
