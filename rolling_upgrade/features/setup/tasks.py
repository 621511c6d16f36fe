"""The tasks `setup`, `setup.check` and `teardown`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import exit_with, root, selected_hosts, task


@task(workflow="setup", default=True, help={"dry-run": "show what is missing, with every command; change nothing"})
def setup(
    context: Any,
    env: str | None = None,
    hosts: list[str] | None = None,
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> None:
    """Prepare hosts for deploys, from a bare Debian or Ubuntu; changes only what is missing."""


@task
def check(context: Any, env: str | None = None, hosts: list[str] | None = None, json: bool = False) -> None:
    """Show what is missing or changed on prepared hosts; exits with 1 if anything is."""
    from rolling_upgrade.features.setup import workflow

    def run() -> int:
        return workflow.setup(env, root=root(), hosts=selected_hosts(context, hosts), check=True, json=json)

    exit_with(run, as_json=json)


@task(
    workflow="teardown",
    help={
        "data": "also delete data and backups",
        "confirm": "name of the application, as confirmation without a terminal",
        "dry-run": "show every removal with its command; change nothing",
    },
)
def teardown(
    context: Any,
    env: str | None = None,
    hosts: list[str] | None = None,
    dry_run: bool = False,
    data: bool = False,
    confirm: str = "",
    json: bool = False,
) -> None:
    """Remove the application from its hosts; packages, users and data stay."""
