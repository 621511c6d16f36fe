"""The tasks `lock.status`, `lock.acquire` and `lock.release`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, task


@task(workflow="status", help=ONE_OBJECT)
def status(context: Any, env: str | None = None, hosts: list[str] | None = None, json: bool = False) -> None:
    """Show each host's lock: holder, reason, start and lease."""


@task(
    workflow="acquire",
    help={"reason": "reason, shown to anyone whom the lock refuses", "for": "duration: 30m, 2h, 1d; default: 1h"},
)
def acquire(
    context: Any, env: str | None = None, reason: str = "", hosts: list[str] | None = None, for_: str = "1h"
) -> None:
    """Lock hosts while you work on them by hand; a second call renews the lock."""


@task(
    workflow="release", help={"force": "also release locks of other operators and of runs; refused while a step runs"}
)
def release(context: Any, env: str | None = None, hosts: list[str] | None = None, force: bool = False) -> None:
    """Release the locks that you acquired."""
