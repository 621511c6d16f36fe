"""The tasks `accessory.up`, `status`, `logs`, `exec`, `restart`, `upgrade` and `down`."""

from __future__ import annotations

import sys
from typing import Any

from invoke.exceptions import Exit

from rolling_upgrade.console.task import ONE_OBJECT, exit_with, root, selected_hosts, task

_NAME = {"name": "only this accessory; may be repeated; default: all"}


@task(workflow="up", help=_NAME)
def up(
    context: Any,
    name: list[str] | None = None,
    env: str | None = None,
    hosts: list[str] | None = None,
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Start the accessories that are not up; one that runs stays as it is."""


@task(workflow="restart", help=_NAME)
def restart(
    context: Any,
    name: list[str] | None = None,
    env: str | None = None,
    hosts: list[str] | None = None,
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Stop accessories and start them again."""


@task(workflow="upgrade", help=_NAME)
def upgrade(
    context: Any,
    name: list[str] | None = None,
    env: str | None = None,
    hosts: list[str] | None = None,
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Replace the accessories whose image or definition has changed; undone if a new one is not healthy."""


@task(
    workflow="down",
    long_only=["data", "force"],
    help=_NAME
    | {
        "data": "also delete the volumes of the accessories",
        "confirm": "with --data: name of the application, instead of typing it",
    },
)
def down(
    context: Any,
    name: list[str] | None = None,
    env: str | None = None,
    hosts: list[str] | None = None,
    data: bool = False,
    confirm: str = "",
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Stop and remove accessories; their volumes stay."""


@task(workflow="status", help=_NAME | ONE_OBJECT)
def status(
    context: Any,
    name: list[str] | None = None,
    env: str | None = None,
    hosts: list[str] | None = None,
    json: bool = False,
) -> None:
    """Show the accessories of each host; exits with 1 if one is not healthy."""


@task(
    workflow="logs",
    help={"name": "the accessory", "lines": "number of lines, 0 for all", "follow": "continue with new lines"},
)
def logs(
    context: Any,
    name: str = "",
    env: str | None = None,
    hosts: list[str] | None = None,
    lines: int = 100,
    follow: bool = False,
) -> None:
    """Show the log of an accessory."""


@task(name="exec", help={"name": "the accessory"})
def execute(context: Any, name: str = "", env: str | None = None, hosts: list[str] | None = None) -> None:
    """Run the command after `--` in an accessory; interactive on a terminal."""
    from rolling_upgrade.features.accessory import workflow

    command = tuple(sys.argv[sys.argv.index("--") + 1 :]) if "--" in sys.argv else ()
    chosen = selected_hosts(context, hosts)
    exit_with(lambda: workflow.execute(env, command, root=root(), hosts=chosen, name=name))
    # As in `exec`: `fab` would run the words after `--` as a remote command.
    raise Exit(code=0)
