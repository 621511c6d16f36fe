"""The task `inspect`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, task


@task(workflow="inspect", help=ONE_OBJECT | {"service": "only these services, separated by commas; may be repeated"})
def inspect(
    context: Any,
    service: list[str] | None = None,
    env: str | None = None,
    hosts: list[str] | None = None,
    json: bool = False,
) -> None:
    """Show one page per host: containers, ports, images, resources, health, logs, the last run."""
