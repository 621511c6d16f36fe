"""The options of all tasks have consistent names, help texts and letters."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from invoke.parser.argument import Argument

import fabfile
from rolling_upgrade.console.task import LETTERS, OPTIONS, SECOND_NAMES
from rolling_upgrade.tasks import GROUPS, namespace

NAMES = sorted(namespace.task_names)
#: The tasks with a body of their own.
WITH_BODY = {"accessory.exec", "exec", "run", "setup.check"}
#: Options that delete or replace data without a confirmation.
DELETING = {
    *(("accessory.down", option) for option in ("data", "confirm", "force")),
    *(("prune", "force"), ("restore", "force"), ("teardown", "data"), ("teardown", "confirm")),
}
#: The feature of each task whose name differs from its feature.
FEATURES = {
    "backups": "backup",
    "config": "configuration",
    "run": "exec",
    "shell": "exec",
    "teardown": "setup",
    "test": "suites",
    "monitor.install": "watchdog",
    "monitor.uninstall": "watchdog",
    "monitor.status": "watchdog",
    "monitor.logs": "watchdog",
}


def options(name: str) -> dict[str, Argument]:
    return {argument.names[0]: argument for argument in namespace[name].get_arguments()}


def shown(name: str) -> str:
    """Return the name of a task, or the name of its group if it is the group's default."""
    group, _, task = name.partition(".")
    return group if task == group else name


@pytest.mark.parametrize("name", NAMES)
def test_task_is_in_the_directory_of_its_feature(name: str) -> None:
    name = shown(name)
    feature = FEATURES.get(name) or FEATURES.get(name.partition(".")[0]) or name.partition(".")[0]

    path = Path(inspect.getfile(namespace[name].body))

    assert (path.parent.name, path.name) == (feature, "tasks.py")


@pytest.mark.parametrize("name", NAMES)
def test_only_a_task_without_a_workflow_has_a_body(name: str) -> None:
    (function,) = ast.parse(inspect.getsource(namespace[name].body)).body
    assert isinstance(function, ast.FunctionDef)

    assert bool(namespace[name].workflow) is (len(function.body) == 1) is (name not in WITH_BODY)


@pytest.mark.parametrize("name", sorted(set(NAMES) - WITH_BODY))
def test_workflow_accepts_every_option_of_its_task_with_the_same_type_and_default(name: str) -> None:
    task = namespace[name]
    workflow = inspect.signature(task.load_workflow())
    options = task.argspec(task.body).parameters

    workflow.bind(root=Path(), **options)
    for option, declared in options.items():
        accepted, repeatable = workflow.parameters[option], option in task.iterable
        types = ("tuple[str, ...]", "Sequence[str]") if repeatable else (declared.annotation,)
        assert accepted.annotation in types, option
        assert accepted.default in (() if repeatable else declared.default, inspect.Parameter.empty), option


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_help_and_no_conflicting_name(name: str) -> None:
    for option, argument in options(name).items():
        letters = {name for name in argument.names if len(name) == 1}
        assert argument.help or argument.positional, option
        assert letters <= {LETTERS.get(option)}, option
        assert SECOND_NAMES.get(option, option) in argument.names, option


@pytest.mark.parametrize("name", NAMES)
def test_option_hosts_is_repeatable_and_has_the_alias_host(name: str) -> None:
    hosts = options(name).get("hosts")

    assert hosts is None or (hosts.kind is list and "host" in hosts.names)


@pytest.mark.parametrize(("name", "option"), sorted(DELETING))
def test_option_that_deletes_data_has_no_short_form(name: str, option: str) -> None:
    assert [alias for alias in options(name)[option].names if len(alias) == 1] == []


def test_help_of_a_task_is_stable() -> None:
    first, second = options("teardown"), options("teardown")

    assert first["data"].help == second["data"].help == "also delete data and backups"


def test_short_options_are_unique_in_a_task() -> None:
    for name in NAMES:
        letters = [alias for argument in options(name).values() for alias in argument.names if len(alias) == 1]
        assert len(letters) == len(set(letters)), name


def test_letter_has_one_meaning_in_all_tasks() -> None:
    meanings: dict[str, set[str]] = {}
    for name in fabfile.namespace.task_names:
        for argument in fabfile.namespace[name].get_arguments():
            for letter in (alias for alias in argument.names if len(alias) == 1):
                meanings.setdefault(letter, set()).add(argument.names[0])

    assert meanings == {"d": {"dry-run"}, "e": {"env"}, "f": {"force"}, "j": {"json"}}


def test_every_shared_help_text_belongs_to_an_option() -> None:
    used = {option for name in NAMES for option in options(name)}

    assert set(OPTIONS) | set(LETTERS) | set(SECOND_NAMES) <= used


def test_groups_contain_every_task_once() -> None:
    grouped = [name for names in GROUPS.values() for name in names]

    assert sorted(grouped) == sorted(map(shown, NAMES))
    assert len(next(iter(GROUPS.values()))) == 6
