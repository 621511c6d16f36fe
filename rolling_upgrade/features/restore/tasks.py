"""The task `restore`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import task
from rolling_upgrade.errors import PROGRAM


@task(
    workflow="restore",
    positional=["backup"],
    long_only=["force"],
    help={
        "backup": f"id of the backup, as {PROGRAM} backups shows it, or latest",
        "only": "database or uploads; default: everything in the backup",
    },
)
def restore(
    context: Any,
    backup: str,
    env: str | None = None,
    only: str = "",
    hosts: list[str] | None = None,
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Restore a backup; stops the application during the restore, and undoes it on failure."""
