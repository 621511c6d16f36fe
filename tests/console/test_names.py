"""The names that people already use: each second one does what the first one does, everywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fabfile.tasks.names import SECOND_NAMES
from fabfile.tasks.namespace import namespace

ROOT = Path(__file__).parents[2]


def ran(*words: str, program: str = "invoke") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", program, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_every_task_with_an_option_has_its_second_name_too() -> None:
    options = [argument.names for name in namespace.task_names for argument in namespace[name].get_arguments()]

    for first, second in SECOND_NAMES.items():
        found = [names for names in options if first in names]
        assert found
        assert all(second in names for names in found)


@pytest.mark.parametrize("program", ["invoke", "fabric"])
@pytest.mark.parametrize("words", [("--environment", "nowhere"), ("--environment=nowhere",), ("--env", "nowhere")])
def test_environment_is_env(program: str, words: tuple[str, ...]) -> None:
    done = ran("deploy", *words, program=program)

    assert (done.returncode, "There is no environment 'nowhere'" in done.stderr) == (2, True), done


@pytest.mark.parametrize(("option", "letter"), [("dry_run", "d"), ("force", "f"), ("env", "e"), ("json", "j")])
def test_short_option_means_the_same_on_every_task(option: str, letter: str) -> None:
    # A hand that knows `-d` from a deploy must not delete data with it.
    tasks = [{one.name: one.names for one in namespace[name].get_arguments()} for name in namespace.task_names]

    found = [names[option] for names in tasks if option in names]
    assert found
    assert [names for names in found if letter not in names] == []


def test_test_suite_is_suite() -> None:
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
def test_health_option_without_its_form_is_refused(words: tuple[str, ...]) -> None:
    done = ran("health", "--env", "production", *words)

    assert (done.returncode, f"command line: {words[0]}: found '{words[1]}'" in done.stderr) == (2, True), done
