"""The task `monitor`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import chosen_hosts, end_with, root, task


@task(default=True, help={"interval": "pause between two looks, such as 10s; HEALTH_CHECK_INTERVAL without it"})
def monitor(context: Any, env: str | None = None, hosts: list[str] | None = None, interval: str = "") -> None:
    """Watch all hosts live: health, latency, restarts, what happened; until Ctrl-C."""
    from rolling_upgrade.features.monitor import workflow

    end_with(lambda: workflow.monitor(env, root=root(), hosts=chosen_hosts(context, hosts), interval=interval))
