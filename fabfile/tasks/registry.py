"""The tasks for logins at registries. Signatures and help only."""

from __future__ import annotations

from typing import Any

from fabfile.tasks.ending import ROOT, WHERE, chosen_hosts, end_with
from fabfile.tasks.names import task

_REGISTRY = {"registry": "the registry; without it REGISTRY in the env file"}


@task(help={**WHERE, **_REGISTRY, "username": "the login name; without it REGISTRY_USERNAME in the env file"})
def login(
    context: Any, env: str | None = None, registry: str = "", username: str = "", hosts: str | None = None
) -> None:
    """Log the hosts in at a registry; the password comes from the env file, standard input or the terminal."""
    from fabfile.workflows.registry import login as run

    end_with(lambda: run(env, root=ROOT, hosts=chosen_hosts(context, hosts), registry_name=registry, username=username))


@task(help=WHERE | _REGISTRY)
def logout(context: Any, env: str | None = None, registry: str = "", hosts: str | None = None) -> None:
    """Forget the hosts' login at a registry."""
    from fabfile.workflows.registry import logout as run

    end_with(lambda: run(env, root=ROOT, hosts=chosen_hosts(context, hosts), registry_name=registry))
