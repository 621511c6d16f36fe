"""The task `promote`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import exit_with, root, task


@task(
    help={
        "from": "environment that proved the release",
        "to": "environment that gets the same images",
        "force": "skip the confirmation; create new containers even where nothing changed",
    }
)
def promote(
    context: Any,  # noqa: ARG001
    from_: str = "",
    to: str = "",
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Deploy the digests that one environment has proved to another; tags may have moved since."""
    from rolling_upgrade.features.promote import workflow

    exit_with(lambda: workflow.promote(from_, to, root=root(), force=force, dry_run=dry_run, json=json))
