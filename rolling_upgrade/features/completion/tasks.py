"""The task `completion`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ON_FILES, exit_with, root_or_here, task


@task(help={"shell": "bash, zsh or fish; default: bash", "names": "environments or hosts: print their names instead"})
def completion(context: Any, shell: str = "bash", names: str = "") -> None:  # noqa: ARG001
    """Print a shell script that completes tasks, options, environments and hosts."""
    from rolling_upgrade.features.completion import workflow

    exit_with(lambda: workflow.completion(shell, names, root=root_or_here()), interrupted=ON_FILES)
