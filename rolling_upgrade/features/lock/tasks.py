"""The tasks `lock.status`, `lock.acquire` and `lock.release`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, chosen_hosts, end_with, root, task


@task(help=ONE_OBJECT)
def status(context: Any, env: str | None = None, hosts: list[str] | None = None, json: bool = False) -> None:
    """Show who holds each host, why, since when and for how long."""
    from rolling_upgrade.features.lock import workflow

    end_with(lambda: workflow.status(env, root=root(), hosts=chosen_hosts(context, hosts), json=json))


@task(help={"reason": "the purpose, shown to everyone who is refused", "for": "how long: 30m, 2h, 1d; 1h without it"})
def acquire(
    context: Any, env: str | None = None, reason: str = "", hosts: list[str] | None = None, for_: str = "1h"
) -> None:
    """Keep deploys away from hosts while you work on them by hand; again, it renews."""
    from rolling_upgrade.features.lock import workflow

    end_with(lambda: workflow.acquire(env, root=root(), hosts=chosen_hosts(context, hosts), reason=reason, lease=for_))


@task(help={"force": "free another's lock, or a run's, too; a stage that runs is let end"})
def release(context: Any, env: str | None = None, hosts: list[str] | None = None, force: bool = False) -> None:
    """Free what you locked by hand."""
    from rolling_upgrade.features.lock import workflow

    end_with(lambda: workflow.release(env, root=root(), hosts=chosen_hosts(context, hosts), force=force))
