"""The tasks `registry.login` and `registry.logout`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import exit_with, root, selected_hosts, task

_REGISTRY = {"registry": "registry; default: REGISTRY in the env file"}


@task(help=_REGISTRY | {"username": "login name; default: REGISTRY_USERNAME in the env file"})
def login(
    context: Any, env: str | None = None, registry: str = "", username: str = "", hosts: list[str] | None = None
) -> None:
    """Log the hosts in to a registry; the password comes from the env file, standard input or the terminal."""
    from rolling_upgrade.features.registry import workflow

    chosen = selected_hosts(context, hosts)
    exit_with(lambda: workflow.login(env, root=root(), hosts=chosen, registry_name=registry, username=username))


@task(help=_REGISTRY)
def logout(context: Any, env: str | None = None, registry: str = "", hosts: list[str] | None = None) -> None:
    """Log the hosts out of a registry."""
    from rolling_upgrade.features.registry import workflow

    exit_with(lambda: workflow.logout(env, root=root(), hosts=selected_hosts(context, hosts), registry_name=registry))
