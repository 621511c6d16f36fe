"""The task `health`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import chosen_hosts, end_with, root, task


@task(
    help={
        "once": "look once; otherwise again every HEALTH_CHECK_INTERVAL, where there is a terminal",
        "interval": "look again after so long, without a terminal too: 10s, 1m",
        "max-failures": "end with 1 after so many bad looks in a row; without it, only Ctrl-C ends",
        "auto-recovery": "make sure that the watchdog runs on the hosts first: it recovers what stays bad",
        "verbose": "every check with its answer and time, not only what is wrong",
        "json": "one JSON object on stdout, once",
    }
)
def health(
    context: Any,
    env: str | None = None,
    hosts: list[str] | None = None,
    once: bool = False,
    verbose: bool = False,
    json: bool = False,
    interval: str = "",
    max_failures: str = "",
    auto_recovery: bool = False,
) -> None:
    """Check every host: containers, HTTP, database, disk, memory, certificate, clock, backup."""
    from rolling_upgrade.features.health import workflow

    end_with(
        lambda: workflow.health(
            env,
            root=root(),
            hosts=chosen_hosts(context, hosts),
            once=once,
            verbose=verbose,
            json=json,
            interval=interval,
            max_failures=max_failures,
            auto_recovery=auto_recovery,
        )
    )
