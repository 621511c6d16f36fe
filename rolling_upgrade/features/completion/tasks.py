"""The task `completion`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ON_FILES, task


@task(
    workflow="completion",
    needs_configuration=False,
    interrupted=ON_FILES,
    help={"shell": "bash, zsh or fish; default: bash", "names": "environments or hosts: print their names instead"},
)
def completion(context: Any, shell: str = "bash", names: str = "") -> None:
    """Print a shell script that completes tasks, options, environments and hosts."""
