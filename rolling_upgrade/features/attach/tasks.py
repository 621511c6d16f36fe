"""The task `attach`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import task


@task(workflow="attach")
def attach(context: Any, env: str | None = None, hosts: list[str] | None = None, json: bool = False) -> None:
    """Follow the run in progress on the hosts, from any workstation; Ctrl-C leaves the run alone."""
