"""The tasks `backup`, `backup.verify`, `backup.fetch` and `backups`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, exit_with, root, selected_hosts, task

_BACKUP = {"backup": "id of the backup; default: the newest of each host"}


@task(default=True, help={"fetch": "also download the new backup to this local directory"})
def backup(
    context: Any, env: str | None = None, hosts: list[str] | None = None, fetch: str = "", json: bool = False
) -> None:
    """Back up the database, uploads and configuration of each host while it serves."""
    from rolling_upgrade.features.backup import workflow

    exit_with(lambda: workflow.backup(env, root=root(), hosts=selected_hosts(context, hosts), fetch=fetch, json=json))


@task(help=_BACKUP)
def verify(
    context: Any, backup: str = "latest", env: str | None = None, hosts: list[str] | None = None, json: bool = False
) -> None:
    """Restore a backup into a scratch directory on its host and check it; exits with 1 if it is damaged."""
    from rolling_upgrade.features.backup import workflow

    exit_with(lambda: workflow.verify(env, root=root(), hosts=selected_hosts(context, hosts), backup=backup, json=json))


@task(help=_BACKUP | {"to": "local directory for the archives"})
def fetch(
    context: Any,
    backup: str = "latest",
    to: str = "",
    env: str | None = None,
    hosts: list[str] | None = None,
    json: bool = False,
) -> None:
    """Download a backup of each host as one archive, checked against its manifest."""
    from rolling_upgrade.features.backup import workflow

    chosen = selected_hosts(context, hosts)
    exit_with(lambda: workflow.fetch(env, root=root(), hosts=chosen, backup=backup, to=to, json=json))


@task(help=ONE_OBJECT)
def backups(context: Any, env: str | None = None, hosts: list[str] | None = None, json: bool = False) -> None:
    """List the backups of each host: kind, age, size, release, verification."""
    from rolling_upgrade.features.backup import workflow

    exit_with(lambda: workflow.show(env, root=root(), hosts=selected_hosts(context, hosts), json=json))
