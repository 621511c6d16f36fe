"""Who runs a task, and whether the process of a lock is alive."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from rolling_upgrade.console import identity
from rolling_upgrade.engine.local_command import SECRET_VARIABLES
from rolling_upgrade.engine.model import Lock
from tests.hostile.repositories import THIEF, Repository

CI = ("ROLLING_OPERATOR", "GITHUB_ACTOR", "GITLAB_USER_LOGIN")


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
    return Lock("t", "ann", workstation or identity.workstation(), pid, "deploy", 0, 0)


@pytest.mark.parametrize("key", CI)
def test_name_in_ci_is_the_actor_of_the_ci_system(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(key, "the-actor")

    assert identity.name() == "the-actor"


def test_name_outside_ci_is_the_login_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ann")

    assert identity.name() == "ann"


def test_operator_name_falls_back_to_the_user_id(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)

    assert identity.name() == f"uid{os.getuid()}"


def test_revision_gives_filters_no_secret_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = Repository(tmp_path / "clone", {"file": "one\n"})
    for name in SECRET_VARIABLES:
        monkeypatch.setenv(name, f"canary of {name}")
    clone.change("file", "two\n")
    clone.filter_with(THIEF)

    assert identity.revision(clone.directory) == f"{clone.git('rev-parse', '--short=12', 'HEAD')}+changes"
    assert "canary" not in clone.found.read_text()
    assert clone.daemon_is_gone()


def test_revision_is_cached_before_a_suite_can_change_it(tmp_path: Path) -> None:
    clone = Repository(tmp_path / "clone", {"file": "one\n"})
    first = identity.revision(clone.directory)

    clone.change("file", "two\n")
    clone.filter_with(THIEF)

    assert first
    assert identity.revision(clone.directory) == first
    assert not clone.found.exists()


def test_revision_without_git_is_empty(tmp_path: Path) -> None:
    assert identity.revision(tmp_path) == ""


def test_lock_names_this_process() -> None:
    made = identity.lock("r2", "deploy v2")

    assert (made.token, made.pid, made.workstation, made.reason) == (
        "r2",
        os.getpid(),
        identity.workstation(),
        "deploy v2",
    )
    assert not identity.is_dead(made)


def test_is_dead_finished_process_of_this_machine_is_dead(ended: int) -> None:
    assert identity.is_dead(lock(ended))


def test_is_dead_process_of_another_machine_is_not_dead(ended: int) -> None:
    assert not identity.is_dead(lock(ended, "another-machine"))


@pytest.mark.parametrize("pid", [0, -1, 1])
def test_is_dead_running_process_is_not_dead(pid: int) -> None:
    assert not identity.is_dead(lock(pid))


def test_is_dead_without_a_lock_is_false() -> None:
    assert not identity.is_dead(None)
