"""The task `prune`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, chosen_hosts, end_with, root, task


@task(long_only=["force"], help=ONE_OBJECT | {"dry-run": "list what would go, change nothing"})
def prune(
    context: Any,
    env: str | None = None,
    hosts: list[str] | None = None,
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Delete what is past its retention: images, containers, configurations, backups, journals."""
    from rolling_upgrade.features.prune import workflow

    chosen = chosen_hosts(context, hosts)
    end_with(lambda: workflow.prune(env, root=root(), hosts=chosen, force=force, dry_run=dry_run, json=json))
