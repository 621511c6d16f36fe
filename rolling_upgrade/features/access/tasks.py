"""The tasks `access.list`, `access.grant`, `access.revoke` and `access.sync`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, chosen_hosts, end_with, root, task

_CHANGES = {"dry-run": "show what would change with every command, change nothing"}
_FORCE = {"force": "do not ask; take away even the key that you log in with yourself"}


@task(name="list", help=ONE_OBJECT)
def show(context: Any, env: str | None = None, hosts: list[str] | None = None, json: bool = False) -> None:
    """Show who can log in to each host; exits with 1 where that is not what the folder says."""
    from rolling_upgrade.features.access import workflow

    end_with(lambda: workflow.show(env, root=root(), hosts=chosen_hosts(context, hosts), json=json))


@task(
    help=_CHANGES
    | {
        "name": "whose key it is: the name of its file, and in the history",
        "key": "a .pub file, or its one line in quotes",
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
    """Let a public key deploy: into deploy/authorized_keys/ENV/NAME.pub, and onto every host."""
    from rolling_upgrade.features.access import workflow

    chosen = chosen_hosts(context, hosts)
    end_with(lambda: workflow.grant(env, name, key, root=root(), hosts=chosen, dry_run=dry_run, force=force, json=json))


@task(help=_CHANGES | _FORCE | {"name": "whose key goes"})
def revoke(
    context: Any,
    env: str | None = None,
    name: str = "",
    hosts: list[str] | None = None,
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> None:
    """Take a key away from every host, and remember it as revoked; never the last one."""
    from rolling_upgrade.features.access import workflow

    chosen = chosen_hosts(context, hosts)
    end_with(lambda: workflow.revoke(env, name, root=root(), hosts=chosen, dry_run=dry_run, force=force, json=json))


@task(
    help=_CHANGES | _FORCE | {"exclusive": "also take away keys that the folder does not know, outside of every block"}
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
    """Make every host let in exactly whom the folder names."""
    from rolling_upgrade.features.access import workflow

    end_with(
        lambda: workflow.sync(
            env,
            root=root(),
            hosts=chosen_hosts(context, hosts),
            exclusive=exclusive,
            dry_run=dry_run,
            force=force,
            json=json,
        )
    )
