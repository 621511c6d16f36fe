"""The task `doctor`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, exit_with, root, selected_hosts, task


@task(help=ONE_OBJECT)
def doctor(context: Any, env: str | None = None, hosts: list[str] | None = None, json: bool = False) -> None:
    """Find problems on this workstation and the hosts; exits with 3 if a deploy would be refused."""
    from rolling_upgrade.features.doctor import workflow

    exit_with(lambda: workflow.doctor(env, root=root(), hosts=selected_hosts(context, hosts), json=json))
