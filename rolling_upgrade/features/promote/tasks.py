"""The task `promote`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import task


@task(
    workflow="promote",
    help={
        "from": "environment on which the release was tested",
        "to": "environment to deploy the images to",
        "force": "skip the confirmation; create new containers even where nothing changed",
    },
)
def promote(
    context: Any, from_: str = "", to: str = "", force: bool = False, dry_run: bool = False, json: bool = False
) -> None:
    """Deploy the digests that run in one environment to another, even if their tags have moved."""
