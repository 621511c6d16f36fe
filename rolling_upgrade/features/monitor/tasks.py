"""The task `monitor`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import task


@task(
    workflow="monitor",
    default=True,
    help={"interval": "interval between two rounds of checks, such as 10s; default: HEALTH_CHECK_INTERVAL"},
)
def monitor(context: Any, env: str | None = None, hosts: list[str] | None = None, interval: str = "") -> None:
    """Watch all hosts live until Ctrl-C: health, latency, restarts and events."""
