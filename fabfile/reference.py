"""Generate the reference of all tasks: `python -m fabfile.reference > docs/reference/tasks.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rolling_upgrade.tasks import namespace

if TYPE_CHECKING:
    from invoke.parser.argument import Argument

_INTRODUCTION = """\
# Tasks

Every task with every option. `rolling-upgrade --list` lists the tasks, `rolling-upgrade TASK --help` shows the options
of one. A task name with a dot belongs to the group before it. The `lab` tasks exist only in a clone, under `inv` and
`fab`.

This page is generated: `python -m fabfile.reference > docs/reference/tasks.md`.
"""


def page() -> str:
    """Return the page in Markdown."""
    return "\n".join([_INTRODUCTION, *(_section(name) for name in sorted(_names()))])


def _names() -> dict[str, str]:
    """Map the shortest name of each task to its full name: `setup` to `setup.setup`."""
    return {min([task, *aliases], key=len): task for task, aliases in namespace.task_names.items()}


def _section(name: str) -> str:
    task = namespace[name]
    rows = [_row(argument) for argument in task.get_arguments()]
    table = ["| option | meaning |", "|---|---|", *rows] if rows else []
    summary = (task.__doc__ or "").strip().splitlines()[0]
    return "\n".join([f"## {name}", "", summary, "", *table, ""])


def _row(argument: Argument) -> str:
    return f"| {' '.join(_spellings(argument))} | {_cell(argument.help or '')} |"


def _spellings(argument: Argument) -> Iterator[str]:
    """Yield the names of an option, the longest first; of a positional argument, only its name."""
    if argument.positional:
        yield f"`{argument.names[0].upper()}`"
        return
    value = "" if argument.kind is bool else f" {argument.names[0].upper()}"
    for name in sorted(argument.names, key=len, reverse=True):
        yield f"`-{name}`" if len(name) == 1 else f"`--{name}{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.stdout.write(page())
