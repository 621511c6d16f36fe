"""The task `promote`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import exit_with, root, task


@task(
    help={
        "from": "environment on which the release was tested",
        "to": "environment to deploy the images to",
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
    """Deploy the digests that run in one environment to another, even if their tags have moved."""
    from rolling_upgrade.features.promote import workflow

    exit_with(lambda: workflow.promote(from_, to, root=root(), force=force, dry_run=dry_run, json=json))
