"""The tasks `monitor.install`, `monitor.uninstall`, `monitor.status` and `monitor.logs`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, chosen_hosts, end_with, root, task


@task
def install(context: Any, env: str | None = None, hosts: list[str] | None = None) -> None:
    """Put the watchdog on the hosts: it recovers the application while nobody looks."""
    from rolling_upgrade.features.watchdog import workflow

    end_with(lambda: workflow.install(env, root=root(), hosts=chosen_hosts(context, hosts)))


@task
def uninstall(context: Any, env: str | None = None, hosts: list[str] | None = None) -> None:
    """Take the watchdog away from the hosts."""
    from rolling_upgrade.features.watchdog import workflow

    end_with(lambda: workflow.uninstall(env, root=root(), hosts=chosen_hosts(context, hosts)))


@task(help=ONE_OBJECT)
def status(context: Any, env: str | None = None, hosts: list[str] | None = None, json: bool = False) -> None:
    """Show each host's watchdog: whether it runs, when it looked last, what it recovered."""
    from rolling_upgrade.features.watchdog import workflow

    end_with(lambda: workflow.status(env, root=root(), hosts=chosen_hosts(context, hosts), json=json))


@task(help={"lines": "how many lines of each host"})
def logs(context: Any, env: str | None = None, hosts: list[str] | None = None, lines: int = 100) -> None:
    """Show what the watchdogs saw and did."""
    from rolling_upgrade.features.watchdog import workflow

    end_with(lambda: workflow.logs(env, root=root(), hosts=chosen_hosts(context, hosts), lines=lines))
