"""The operator, whether a lock's process is alive, and confirmations."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rolling_upgrade.console import operator
from rolling_upgrade.engine.local_command import SECRET_VARIABLES
from rolling_upgrade.engine.model import Lock
from rolling_upgrade.errors import ConfigError, Interrupted
from tests.hostile.repositories import THIEF, Repository

CI = ("ROLLING_OPERATOR", "GITHUB_ACTOR", "GITLAB_USER_LOGIN")


class Terminal(io.StringIO):
    """A standard input that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in CI:
        monkeypatch.delenv(key, raising=False)


@pytest.fixture
def ended() -> int:
    """Return the id of a finished process."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def lock(pid: int, workstation: str = "") -> Lock:
    return Lock("t", "ann", workstation or operator.workstation(), pid, "deploy", 0, 0)


@pytest.mark.parametrize("key", CI)
def test_name_in_ci_is_the_actor_of_the_ci_system(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(key, "the-actor")

    assert operator.name() == "the-actor"


def test_name_outside_ci_is_the_login_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ann")

    assert operator.name() == "ann"


def test_operator_name_falls_back_to_the_user_id(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)

    assert operator.name() == f"uid{os.getuid()}"


def test_revision_gives_filters_no_secret_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = Repository(tmp_path / "clone", {"file": "one\n"})
    for name in SECRET_VARIABLES:
        monkeypatch.setenv(name, f"canary of {name}")
    clone.change("file", "two\n")
    clone.filter_with(THIEF)

    assert operator.revision(clone.directory) == f"{clone.git('rev-parse', '--short=12', 'HEAD')}+changes"
    assert "canary" not in clone.found.read_text()
    assert clone.daemon_is_gone()


def test_revision_is_cached_before_a_suite_can_change_it(tmp_path: Path) -> None:
    clone = Repository(tmp_path / "clone", {"file": "one\n"})
    first = operator.revision(clone.directory)

    clone.change("file", "two\n")
    clone.filter_with(THIEF)

    assert first
    assert operator.revision(clone.directory) == first
    assert not clone.found.exists()


def test_revision_without_git_is_empty(tmp_path: Path) -> None:
    assert operator.revision(tmp_path) == ""


def test_lock_names_this_process() -> None:
    made = operator.lock("r2", "deploy v2")

    assert (made.token, made.pid, made.workstation, made.reason) == (
        "r2",
        os.getpid(),
        operator.workstation(),
        "deploy v2",
    )
    assert not operator.is_dead(made)


def test_is_dead_finished_process_of_this_machine_is_dead(ended: int) -> None:
    assert operator.is_dead(lock(ended))


def test_is_dead_process_of_another_machine_is_not_dead(ended: int) -> None:
    assert not operator.is_dead(lock(ended, "another-machine"))


@pytest.mark.parametrize("pid", [0, -1, 1])
def test_is_dead_running_process_is_not_dead(pid: int) -> None:
    assert not operator.is_dead(lock(pid))


def test_is_dead_without_a_lock_is_false() -> None:
    assert not operator.is_dead(None)


@pytest.mark.parametrize("answer", ["y\n", "Yes\n", " YES \n"])
def test_confirm_yes_returns_after_one_prompt(
    answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(f"{answer}n\n"))

    operator.confirm("Deploy?", force=False, hint="")

    assert (sys.stdin.readline(), capsys.readouterr().err.count("Deploy?")) == ("n\n", 1)


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "yep\n", "no, yes\n"])
def test_confirm_other_answers_raise_interrupted(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))

    with pytest.raises(Interrupted, match="nothing was touched"):
        operator.confirm("Deploy?", force=False, hint="")


def test_confirm_prompts_on_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))

    operator.confirm("Deploy?", force=False, hint="")

    assert (capsys.readouterr()) == ("", "Deploy? [y/N] ")


def test_confirm_without_a_terminal_raises_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))

    with pytest.raises(ConfigError) as caught:
        operator.confirm("Deploy?", force=False, hint="use --force")

    assert caught.value.next_step == "use --force"


def test_confirm_with_force_does_not_prompt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))

    operator.confirm("Deploy?", force=True, hint="")

    assert (sys.stdin.readline(), capsys.readouterr()) == ("n\n", ("", ""))
