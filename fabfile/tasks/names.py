"""The project's `@task`: Invoke's own, in which options have the names that people already use as well."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from invoke.tasks import Task
from invoke.tasks import task as invoke_task

if TYPE_CHECKING:
    from invoke.parser.argument import Argument

#: The second name of an option, wherever a task has the first one.
SECOND_NAMES = {"env": "environment", "suite": "test-suite"}


class NamedTask(Task):  # type: ignore[type-arg]
    """A task whose options answer to their second names too."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """The options of the task's signature, each under all its names."""
        found = super().get_arguments(ignore_unknown_help)
        for argument in found:
            second = SECOND_NAMES.get(argument.names[0])
            argument.names = (*argument.names, *([second] if second else []))
        return found


task = partial(invoke_task, klass=NamedTask)
