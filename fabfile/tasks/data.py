"""The tasks on data: backup, backups, restore. Signatures and help only."""

from __future__ import annotations

from typing import Any

from fabfile.tasks.ending import COMMON, ROOT, chosen_hosts, end_with
from fabfile.tasks.names import task


@task(default=True, help=COMMON | {"fetch": "bring the new backup to this directory here as well"})
def backup(context: Any, env: str | None = None, hosts: str | None = None, fetch: str = "", json: bool = False) -> None:
    """Back up database, uploads and configuration of each host, while it serves."""
    from fabfile.workflows.backups import Request
    from fabfile.workflows.backups import backup as run

    request = Request(env, ROOT, chosen_hosts(context, hosts), fetch=fetch, json=json)
    end_with(lambda: run(request))


@task(help=COMMON | {"backup": "a backup's id; without it the newest of each host"})
def verify(
    context: Any, backup: str = "latest", env: str | None = None, hosts: str | None = None, json: bool = False
) -> None:
    """Restore a backup into a scratch place on its host and check it; exits with 1 when it is damaged."""
    from fabfile.workflows.backups import Request
    from fabfile.workflows.backups import verify as run

    request = Request(env, ROOT, chosen_hosts(context, hosts), backup=backup, json=json)
    end_with(lambda: run(request))


@task(
    help=COMMON
    | {
        "backup": "a backup's id; without it the newest of each host",
        "to": "the directory here that receives the archives",
    },
)
def fetch(
    context: Any,
    backup: str = "latest",
    to: str = "",
    env: str | None = None,
    hosts: str | None = None,
    json: bool = False,
) -> None:
    """Bring a backup of each host here as one archive, checked against its manifest."""
    from fabfile.workflows.backups import Request
    from fabfile.workflows.backups import fetch as run

    request = Request(env, ROOT, chosen_hosts(context, hosts), backup=backup, fetch=to, json=json)
    end_with(lambda: run(request))


@task(help=COMMON | {"json": "one JSON object on stdout"})
def backups(context: Any, env: str | None = None, hosts: str | None = None, json: bool = False) -> None:
    """List the backups of each host: kind, age, size, release, verified or not."""
    from fabfile.workflows.backups import Request, show

    request = Request(env, ROOT, chosen_hosts(context, hosts), json=json)
    end_with(lambda: show(request))


@task(
    help={
        **COMMON,
        "backup": "a backup's id, as inv backups shows it, or latest",
        "only": "database or uploads; without it all that the backup holds",
        "force": "do not ask",
        "dry-run": "show the plan with every command, change nothing",
    },
    positional=["backup"],
)
def restore(
    context: Any,
    backup: str,
    env: str | None = None,
    only: str = "",
    hosts: str | None = None,
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Put a backup back: stops the application for it, and undoes it where it fails."""
    from fabfile.workflows.restore import Request
    from fabfile.workflows.restore import restore as run

    request = Request(env, ROOT, backup, only, chosen_hosts(context, hosts), force=force, dry_run=dry_run, json=json)
    end_with(lambda: run(request))
