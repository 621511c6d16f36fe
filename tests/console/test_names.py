"""The second names and letters of options are the same in every task."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rolling_upgrade.console.task import SECOND_NAMES
from rolling_upgrade.tasks import namespace

ROOT = Path(__file__).parents[2]


def ran(*words: str, program: str = "invoke") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", program, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_shared_option_has_its_second_name_in_every_task() -> None:
    options = [argument.names for name in namespace.task_names for argument in namespace[name].get_arguments()]

    for first, second in SECOND_NAMES.items():
        found = [names for names in options if first in names]
        assert found
        assert all(second in names for names in found)


@pytest.mark.parametrize("program", ["invoke", "fabric"])
@pytest.mark.parametrize("words", [("--environment", "nowhere"), ("--environment=nowhere",), ("--env", "nowhere")])
def test_environment_is_another_name_of_env(program: str, words: tuple[str, ...]) -> None:
    done = ran("deploy", *words, program=program)

    assert (done.returncode, "Unknown environment 'nowhere'" in done.stderr) == (2, True), done


@pytest.mark.parametrize(("option", "letter"), [("dry_run", "d"), ("force", "f"), ("env", "e"), ("json", "j")])
def test_short_option_has_one_meaning_in_all_tasks(option: str, letter: str) -> None:
    # A letter typed from habit must not delete or replace data in another task.
    tasks = {
        name: {argument.name: argument.names for argument in namespace[name].get_arguments()}
        for name in namespace.task_names
        if (name, option) not in {("prune", "force"), ("restore", "force"), ("accessory.down", "force")}
    }

    found = [names[option] for names in tasks.values() if option in names]
    assert found
    assert [names for names in found if letter not in names] == []


def test_test_suite_is_another_name_of_suite() -> None:
    done = ran("test", "--test-suite", "all-of-them")

    assert (done.returncode, "'all-of-them'" in done.stderr) == (2, True), done


def test_option_given_under_both_names_is_refused() -> None:
    done = ran("status", "--env", "production", "--environment", "staging")

    assert (done.returncode, "staging" in done.stderr) == (1, True), done


@pytest.mark.parametrize(
    "words",
    [
        ("--interval", "soon"),
        ("--interval", "0.1s"),
        ("--max-failures", "0"),
        ("--max-failures", "many"),
    ],
)
def test_health_option_with_an_invalid_value_is_refused(words: tuple[str, ...]) -> None:
    done = ran("health", "--env", "production", *words)

    assert (done.returncode, f"command line: {words[0]}: found '{words[1]}'" in done.stderr) == (2, True), done


@pytest.mark.parametrize(
    ("program", "words", "option"),
    [
        ("invoke", ("status", "-e", "production", "--dry"), "--dry"),
        ("invoke", ("-R", "deploy", "-e", "production", "--force"), "--dry"),
        ("fabric", ("deploy", "-e", "production", "-R", "--force"), "--dry"),
        ("invoke", ("status", "-e", "production", "--echo"), "--echo"),
        ("invoke", ("status", "-e", "production", "-w"), "--warn-only"),
        ("invoke", ("status", "-e", "production", "-T", "5"), "--command-timeout"),
        ("invoke", ("prune", "-e", "production", "-f", "x.yml"), "--config"),
        ("fabric", ("-i", "key", "status", "-e", "production"), "--identity"),
        ("fabric", ("-S", "/dev/null", "status", "-e", "production"), "--ssh-config"),
        ("fabric", ("-t", "5", "status", "-e", "production"), "--connect-timeout"),
    ],
)
def test_unused_option_of_invoke_or_fabric_is_refused(program: str, words: tuple[str, ...], option: str) -> None:
    done = ran(*words, program=program)

    hint = "; use --dry-run" if option == "--dry" else ""
    expected = (
        f"{option} is an option of Invoke or Fabric, which the tasks here do not act on{hint}. Nothing was contacted."
    )
    assert (done.returncode, done.stdout, done.stderr.strip().splitlines()[-1:]) == (2, "", [expected]), done


def test_dry_from_an_environment_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVOKE_RUN_DRY", "1")

    done = ran("status", "-e", "production")

    assert (done.returncode, "use --dry-run. Nothing was contacted." in done.stderr) == (2, True), done
