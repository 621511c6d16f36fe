"""The task that completes command lines. Signatures and help only."""

from __future__ import annotations

from typing import Any

from fabfile.tasks.ending import ON_FILES, ROOT, end_with
from fabfile.tasks.names import task


@task(help={"shell": "bash, zsh or fish", "names": "environments or hosts: print their names instead"})
def completion(context: Any, shell: str = "bash", names: str = "") -> None:  # noqa: ARG001
    """Print the script that completes tasks, options, environments and hosts in your shell."""
    from fabfile.workflows.completion import completion as run

    end_with(lambda: run(shell, names, root=ROOT), interrupted=ON_FILES)
