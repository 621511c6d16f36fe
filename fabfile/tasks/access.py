"""The tasks for who may deploy, and for which hosts are who they say they are. Signatures and help only."""

from __future__ import annotations

from typing import Any

from fabfile.tasks.ending import COMMON, ROOT, WHERE, chosen_hosts, end_with
from fabfile.tasks.names import task

_CHANGES = {**COMMON, "dry-run": "show what would change with every command, change nothing"}
_FORCE = {"force": "do not ask; take away even the key that you log in with yourself"}
_EXCLUSIVE = {"exclusive": "also take away keys that the folder does not know, outside of every block"}


@task(name="list", help={**WHERE, "json": "one JSON object on stdout"})
def show(context: Any, env: str | None = None, hosts: str | None = None, json: bool = False) -> None:
    """Show who can log in to each host; exits with 1 where that is not what the folder says."""
    from fabfile.workflows.access import Request
    from fabfile.workflows.access import show as run

    end_with(lambda: run(Request(env, ROOT, chosen_hosts(context, hosts), json=json)))


@task(
    help={
        **_CHANGES,
        "name": "whose key it is: the name of its file, and in the history",
        "key": "a .pub file, or its one line in quotes",
        "force": "do not ask",
    }
)
def grant(
    context: Any,
    env: str | None = None,
    name: str = "",
    key: str = "",
    hosts: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> None:
    """Let a public key deploy: into deploy/authorized_keys/ENV/NAME.pub, and onto every host."""
    from fabfile.workflows.access import Request
    from fabfile.workflows.access import grant as run

    request = Request(env, ROOT, chosen_hosts(context, hosts), dry_run=dry_run, force=force, json=json)
    end_with(lambda: run(request, name, key))


@task(help={**_CHANGES, **_FORCE, "name": "whose key goes"})
def revoke(
    context: Any,
    env: str | None = None,
    name: str = "",
    hosts: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> None:
    """Take a key away from every host, and remember it as revoked; never the last one."""
    from fabfile.workflows.access import Request
    from fabfile.workflows.access import revoke as run

    request = Request(env, ROOT, chosen_hosts(context, hosts), dry_run=dry_run, force=force, json=json)
    end_with(lambda: run(request, name))


@task(help={**_CHANGES, **_FORCE, **_EXCLUSIVE})
def sync(
    context: Any,
    env: str | None = None,
    hosts: str | None = None,
    exclusive: bool = False,
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> None:
    """Make every host let in exactly whom the folder names."""
    from fabfile.workflows.access import Request
    from fabfile.workflows.access import sync as run

    hosts_chosen = chosen_hosts(context, hosts)
    request = Request(env, ROOT, hosts_chosen, exclusive, dry_run=dry_run, force=force, json=json)
    end_with(lambda: run(request))


@task(
    iterable=["fingerprint", "replace"],
    help={
        **WHERE,
        "fingerprint": "accept this key alone, without a question: SHA256:…; may be given more than once",
        "replace": "a host whose changed key you have verified; may be given more than once",
        "force": "do not ask: record what hosts offer, unverified; never a changed key",
    },
)
def trust(
    context: Any,
    env: str | None = None,
    hosts: str | None = None,
    force: bool = False,
    fingerprint: Any = None,
    replace: Any = None,
) -> None:
    """Show the host keys and, once confirmed, record new ones in known_hosts; a changed one is refused."""
    from fabfile.workflows.trust import Request
    from fabfile.workflows.trust import trust as run

    chosen = chosen_hosts(context, hosts)
    end_with(lambda: run(Request(env, ROOT, chosen, tuple(fingerprint or ()), tuple(replace or ()), force=force)))
