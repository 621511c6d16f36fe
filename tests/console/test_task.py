"""The task that runs a workflow, the directory of the configuration, and the selected hosts."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

from rolling_upgrade.console.task import root, root_or_here, selected_hosts, split_words, task
from rolling_upgrade.errors import ConfigError, ExitCode


def test_root_is_the_nearest_directory_with_hosts_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "outer" / "inner"
    (inner / "deploy").mkdir(parents=True)
    for directory in (tmp_path / "outer", inner):
        (directory / "hosts.yaml").touch()
    monkeypatch.chdir(inner / "deploy")

    assert root() == root_or_here() == inner


def test_root_without_hosts_yaml_raises_and_names_init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert root_or_here() == tmp_path
    with pytest.raises(ConfigError, match="rolling-upgrade init") as caught:
        root()
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, ()),
        ([], ()),
        (["web1"], ("web1",)),
        ([" web1, web2 ,"], ("web1", "web2")),
        (["web1", "web2, web3"], ("web1", "web2", "web3")),
        # An empty variable in a script must not select every host.
        ([""], ("",)),
        ([" "], (" ",)),
        ([","], (",",)),
        (["", "web1"], ("web1",)),
    ],
)
def test_selected_hosts_of_an_empty_option_are_not_all_hosts(given: list[str] | None, found: tuple[str, ...]) -> None:
    assert selected_hosts(SimpleNamespace(), given) == found


def test_selected_hosts_without_an_option_are_the_host_of_fab() -> None:
    assert selected_hosts(SimpleNamespace(original_host="web1"), None) == ("web1",)
    assert selected_hosts(SimpleNamespace(original_host="web1"), ["web2"]) == ("web2",)


def test_split_words_without_an_option_is_empty() -> None:
    assert split_words(None) == ()


def test_split_words_of_an_empty_option_is_not_the_default() -> None:
    assert split_words([""]) == ("",)


@task(workflow="run")
def example(
    context: Any,
    env: str | None = None,
    hosts: list[str] | None = None,
    image: list[str] | None = None,
    dry_run: bool = False,
) -> None:
    """An example."""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"env": None, "hosts": (), "image": (), "dry_run": False}),
        (
            {"env": "demo", "hosts": ["web1,web2"], "image": ["a=b,c", "d=e"], "dry_run": True},
            {"env": "demo", "hosts": ("web1", "web2"), "image": ("a=b,c", "d=e"), "dry_run": True},
        ),
    ],
)
def test_task_passes_every_option_to_its_workflow_by_name(
    options: dict[str, Any], expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hosts.yaml").touch()
    monkeypatch.chdir(tmp_path)
    calls = workflow_with_code(monkeypatch, ExitCode.DONE)

    example(Context(), **options)

    assert calls == [{"root": tmp_path, **expected}]


def test_task_exits_with_the_result_of_its_workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hosts.yaml").touch()
    monkeypatch.chdir(tmp_path)
    workflow_with_code(monkeypatch, ExitCode.PARTLY_DONE)

    with pytest.raises(Exit) as caught:
        example(Context())

    assert caught.value.code == ExitCode.PARTLY_DONE


def workflow_with_code(monkeypatch: pytest.MonkeyPatch, code: ExitCode) -> list[dict[str, Any]]:
    """Replace the workflow of the example; return the list to which each call adds its arguments."""
    calls: list[dict[str, Any]] = []

    def run(**options: Any) -> ExitCode:
        calls.append(options)
        return code

    module = ModuleType(f"{__name__.rpartition('.')[0]}.workflow")
    vars(module)["run"] = run
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the handlers of this process stay
    return calls
