"""The tasks `backup`, `backup.verify`, `backup.fetch` and `backups`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, task

_BACKUP = {"backup": "id of the backup; default: the newest of each host"}


@task(workflow="backup", default=True, help={"fetch": "also download the new backup to this local directory"})
def backup(
    context: Any, env: str | None = None, hosts: list[str] | None = None, fetch: str = "", json: bool = False
) -> None:
    """Back up the database, uploads and configuration of each host while it serves."""


@task(workflow="verify", help=_BACKUP)
def verify(
    context: Any, backup: str = "latest", env: str | None = None, hosts: list[str] | None = None, json: bool = False
) -> None:
    """Restore a backup into a scratch directory on its host and check it; exits with 1 if it is damaged."""


@task(workflow="fetch", help=_BACKUP | {"to": "local directory for the archives"})
def fetch(
    context: Any,
    backup: str = "latest",
    to: str = "",
    env: str | None = None,
    hosts: list[str] | None = None,
    json: bool = False,
) -> None:
    """Download a backup of each host as one archive, checked against its manifest."""


@task(workflow="show", help=ONE_OBJECT)
def backups(context: Any, env: str | None = None, hosts: list[str] | None = None, json: bool = False) -> None:
    """List the backups of each host: kind, age, size, release, verification."""
