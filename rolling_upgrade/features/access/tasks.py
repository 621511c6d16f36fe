"""The tasks `access.list`, `access.grant`, `access.revoke` and `access.sync`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, task

_CHANGES = {"dry-run": "show the changes with every command; change nothing"}
_FORCE = {"force": "skip the confirmation; remove even the key that you log in with"}


@task(workflow="show", name="list", help=ONE_OBJECT)
def show(context: Any, env: str | None = None, hosts: list[str] | None = None, json: bool = False) -> None:
    """Show who can log in to each host; exits with 1 if that differs from deploy/authorized_keys."""


@task(
    workflow="grant",
    help=_CHANGES
    | {
        "name": "owner of the key: the name of its file, and in the history",
        "key": "a .pub file, or its line in quotes",
    },
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


@task(workflow="revoke", help=_CHANGES | _FORCE | {"name": "owner of the key"})
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


@task(
    workflow="sync",
    help=_CHANGES | _FORCE | {"exclusive": "also remove keys outside every block that the directory does not list"},
)
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
