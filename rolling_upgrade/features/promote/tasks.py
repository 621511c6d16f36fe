"""The task `promote`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import end_with, root, task


@task(
    help={
        "from": "the environment whose release is good",
        "to": "the environment that gets the very same images",
        "force": "do not ask; deploy again even where nothing changed",
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
    """Deploy to one environment the digests that another one has proved good, whatever its tags say now."""
    from rolling_upgrade.features.promote import workflow

    end_with(lambda: workflow.promote(from_, to, root=root(), force=force, dry_run=dry_run, json=json))
