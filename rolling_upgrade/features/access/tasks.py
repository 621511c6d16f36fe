"""The tasks `access.list`, `access.grant`, `access.revoke` and `access.sync`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, exit_with, root, selected_hosts, task

_CHANGES = {"dry-run": "show the changes with every command; change nothing"}
_FORCE = {"force": "skip the confirmation; remove even the key that you log in with"}


@task(name="list", help=ONE_OBJECT)
def show(context: Any, env: str | None = None, hosts: list[str] | None = None, json: bool = False) -> None:
    """Show who can log in to each host; exits with 1 if that differs from deploy/authorized_keys."""
    from rolling_upgrade.features.access import workflow

    exit_with(lambda: workflow.show(env, root=root(), hosts=selected_hosts(context, hosts), json=json))


@task(
    help=_CHANGES
    | {
        "name": "owner of the key: the name of its file, and in the history",
        "key": "a .pub file, or its line in quotes",
    }
)
def grant(
    context: Any,
    env: str | None = None,
    name: str = "",
    key: str = "",
    hosts: list[str] | None = None,
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> None:
    """Grant a public key access to every host; adds it to deploy/authorized_keys/ENV."""
    from rolling_upgrade.features.access import workflow

    chosen = selected_hosts(context, hosts)
    exit_with(
        lambda: workflow.grant(env, name, key, root=root(), hosts=chosen, dry_run=dry_run, force=force, json=json)
    )


@task(help=_CHANGES | _FORCE | {"name": "owner of the key"})
def revoke(
    context: Any,
    env: str | None = None,
    name: str = "",
    hosts: list[str] | None = None,
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> None:
    """Revoke a key on every host and record it as revoked; never removes the last key."""
    from rolling_upgrade.features.access import workflow

    chosen = selected_hosts(context, hosts)
    exit_with(lambda: workflow.revoke(env, name, root=root(), hosts=chosen, dry_run=dry_run, force=force, json=json))


@task(help=_CHANGES | _FORCE | {"exclusive": "also remove keys outside every block that the directory does not list"})
def sync(
    context: Any,
    env: str | None = None,
    hosts: list[str] | None = None,
    exclusive: bool = False,
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> None:
    """Make the access keys on every host match deploy/authorized_keys."""
    from rolling_upgrade.features.access import workflow

    exit_with(
        lambda: workflow.sync(
            env,
            root=root(),
            hosts=selected_hosts(context, hosts),
            exclusive=exclusive,
            dry_run=dry_run,
            force=force,
            json=json,
        )
    )
