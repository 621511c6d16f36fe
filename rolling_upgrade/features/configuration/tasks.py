"""The tasks `config.check`, `config.show` and `config.schema`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ON_FILES, ONE_OBJECT, task


@task(
    workflow="check",
    help=ONE_OBJECT
    | {"env": "only this environment; default: all", "strict": "treat unknown keys in an env file as errors"},
)
def check(context: Any, env: str | None = None, strict: bool = False, json: bool = False) -> None:
    """Report every error in the configuration; contacts no host, exits with 2 if there is one."""


@task(workflow="show", help=ONE_OBJECT | {"tag": "show the values for a deploy of this image tag"})
def show(
    context: Any, env: str | None = None, hosts: list[str] | None = None, tag: str = "", json: bool = False
) -> None:
    """Show every effective value and its source, secrets masked; contacts no host."""


@task(
    workflow="schema",
    needs_configuration=False,
    interrupted=ON_FILES,
    help={"directory": "where to write them, relative to hosts.yaml"},
)
def schema(context: Any, directory: str = "deploy/schema") -> None:
    """Write the JSON Schemas of hosts.yaml and services.yaml, with which editors complete and check them."""
