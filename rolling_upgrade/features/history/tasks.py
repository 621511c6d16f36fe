"""The task `history`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import chosen_hosts, end_with, root, task


@task(
    help={
        "limit": "how many of the newest entries of each host to show; 0 shows all",
        "verify": "check that no line was changed or removed; exits with 1 when one was",
    }
)
def history(
    context: Any,
    env: str | None = None,
    hosts: list[str] | None = None,
    limit: int = 20,
    verify: bool = False,
    json: bool = False,
) -> None:
    """Show what was done on each host, when, by whom and how it ended."""
    from rolling_upgrade.features.history import workflow

    chosen = chosen_hosts(context, hosts)
    end_with(lambda: workflow.history(env, root=root(), hosts=chosen, limit=limit, verify=verify, json=json))
