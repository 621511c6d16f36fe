"""The tasks `monitor.install`, `monitor.uninstall`, `monitor.status` and `monitor.logs`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, exit_with, root, selected_hosts, task


@task
def install(context: Any, env: str | None = None, hosts: list[str] | None = None) -> None:
    """Install the watchdog on the hosts; it recovers the application without an operator."""
    from rolling_upgrade.features.watchdog import workflow

    exit_with(lambda: workflow.install(env, root=root(), hosts=selected_hosts(context, hosts)))


@task
def uninstall(context: Any, env: str | None = None, hosts: list[str] | None = None) -> None:
    """Remove the watchdog from the hosts."""
    from rolling_upgrade.features.watchdog import workflow

    exit_with(lambda: workflow.uninstall(env, root=root(), hosts=selected_hosts(context, hosts)))


@task(help=ONE_OBJECT)
def status(context: Any, env: str | None = None, hosts: list[str] | None = None, json: bool = False) -> None:
    """Show each host's watchdog: running or not, last check, recoveries."""
    from rolling_upgrade.features.watchdog import workflow

    exit_with(lambda: workflow.status(env, root=root(), hosts=selected_hosts(context, hosts), json=json))


@task(help={"lines": "number of lines of each host; default: 100"})
def logs(context: Any, env: str | None = None, hosts: list[str] | None = None, lines: int = 100) -> None:
    """Show the observations and actions of the watchdogs."""
    from rolling_upgrade.features.watchdog import workflow

    exit_with(lambda: workflow.logs(env, root=root(), hosts=selected_hosts(context, hosts), lines=lines))
