"""The tasks that look after hosts all day: the dashboard and the watchdog. Signatures and help only."""

from __future__ import annotations

from typing import Any

from fabfile.tasks.ending import COMMON, ROOT, WHERE, chosen_hosts, end_with
from fabfile.tasks.names import task


@task(default=True, help=WHERE | {"interval": "pause between two looks, such as 10s; HEALTH_CHECK_INTERVAL without it"})
def monitor(context: Any, env: str | None = None, hosts: str | None = None, interval: str = "") -> None:
    """Watch all hosts live: health, latency, restarts, what happened; until Ctrl-C."""
    from fabfile.workflows.monitor import Request
    from fabfile.workflows.monitor import monitor as run

    end_with(lambda: run(Request(env, ROOT, chosen_hosts(context, hosts), interval)))


@task(help=WHERE)
def install(context: Any, env: str | None = None, hosts: str | None = None) -> None:
    """Put the watchdog on the hosts: it recovers the application while nobody looks."""
    from fabfile.workflows.watchdog import Request
    from fabfile.workflows.watchdog import install as run

    end_with(lambda: run(Request(env, ROOT, chosen_hosts(context, hosts))))


@task(help=WHERE)
def uninstall(context: Any, env: str | None = None, hosts: str | None = None) -> None:
    """Take the watchdog away from the hosts."""
    from fabfile.workflows.watchdog import Request
    from fabfile.workflows.watchdog import uninstall as run

    end_with(lambda: run(Request(env, ROOT, chosen_hosts(context, hosts))))


@task(help=COMMON | {"json": "one JSON object on stdout"})
def status(context: Any, env: str | None = None, hosts: str | None = None, json: bool = False) -> None:
    """Show each host's watchdog: whether it runs, when it looked last, what it recovered."""
    from fabfile.workflows.watchdog import Request
    from fabfile.workflows.watchdog import status as run

    end_with(lambda: run(Request(env, ROOT, chosen_hosts(context, hosts), json=json)))


@task(help=WHERE | {"lines": "how many lines of each host"})
def logs(context: Any, env: str | None = None, hosts: str | None = None, lines: int = 100) -> None:
    """Show what the watchdogs saw and did."""
    from fabfile.workflows.watchdog import Request
    from fabfile.workflows.watchdog import logs as run

    end_with(lambda: run(Request(env, ROOT, chosen_hosts(context, hosts), lines=lines)))
