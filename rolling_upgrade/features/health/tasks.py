"""The task `health`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import task


@task(
    workflow="health",
    help={
        "once": "check once; default on a terminal: repeat every HEALTH_CHECK_INTERVAL",
        "interval": "repeat at this interval, even without a terminal: 10s, 1m",
        "max-failures": "exit with 1 after this many failed rounds in a row; default: run until Ctrl-C",
        "auto-recovery": "first ensure that the watchdog, which recovers failing services, is running on the hosts",
        "verbose": "show every check with its answer and time, not only failures",
        "json": "print one JSON object on stdout, once",
    },
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
