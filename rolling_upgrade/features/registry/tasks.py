"""The tasks `registry.login` and `registry.logout`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import task

_REGISTRY = {"registry": "registry; default: REGISTRY in the env file"}


@task(workflow="login", help=_REGISTRY | {"username": "login name; default: REGISTRY_USERNAME in the env file"})
def login(
    context: Any, env: str | None = None, registry: str = "", username: str = "", hosts: list[str] | None = None
) -> None:
    """Log the hosts in to a registry; the password comes from the env file, standard input or the terminal."""


@task(workflow="logout", help=_REGISTRY)
def logout(context: Any, env: str | None = None, registry: str = "", hosts: list[str] | None = None) -> None:
    """Log the hosts out of a registry."""
