"""The task `status`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, exit_with, root, selected_hosts, task


@task(help=ONE_OBJECT)
def status(context: Any, env: str | None = None, hosts: list[str] | None = None, json: bool = False) -> None:
    """Show what runs on each host and whether it is healthy."""
    from rolling_upgrade.features.status import workflow

    exit_with(lambda: workflow.status(env, root=root(), hosts=selected_hosts(context, hosts), json=json))
