"""The tasks `monitor.install`, `monitor.uninstall`, `monitor.status` and `monitor.logs`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, task


@task(workflow="install")
def install(context: Any, env: str | None = None, hosts: list[str] | None = None) -> None:
    """Install the watchdog on the hosts; it recovers the application without an operator."""


@task(workflow="uninstall")
def uninstall(context: Any, env: str | None = None, hosts: list[str] | None = None) -> None:
    """Remove the watchdog from the hosts."""


@task(workflow="status", help=ONE_OBJECT)
def status(context: Any, env: str | None = None, hosts: list[str] | None = None, json: bool = False) -> None:
    """Show each host's watchdog: running or not, last check, recoveries."""


@task(workflow="logs", help={"lines": "number of lines of each host; default: 100"})
def logs(context: Any, env: str | None = None, hosts: list[str] | None = None, lines: int = 100) -> None:
    """Show the observations and actions of the watchdogs."""
