"""The task `history`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import task


@task(
    workflow="history",
    help={
        "limit": "number of newest entries of each host; default: 20; 0: all",
        "verify": "check that no line was changed or removed; exits with 1 if one was",
    },
)
def history(
    context: Any,
    env: str | None = None,
    hosts: list[str] | None = None,
    limit: int = 20,
    verify: bool = False,
    json: bool = False,
) -> None:
    """Show the runs on each host: action, time, operator and result."""
