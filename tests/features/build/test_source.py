"""Reading an untrusted work tree: none of its programs runs with a secret or stays running."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rolling_upgrade.engine import git, local_command
from rolling_upgrade.errors import PreflightError
from rolling_upgrade.features.build.plan import read_source
from tests.hostile.repositories import THIEF, Repository

FILES = {"backend/Containerfile": "FROM scratch\n", "backend/main.py": "one\n"}


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    for name in local_command.SECRET_VARIABLES:
        monkeypatch.setenv(name, f"canary of {name}")
    return Repository(tmp_path / "app", FILES)


def test_repository_committed_as_files_runs_no_program(app: Repository) -> None:
    context = app.directory / "backend"
    app.hide_repository("backend", THIEF)
    app.change("backend/main.py", "one\n")

    with pytest.raises(PreflightError, match=r"safe\.bareRepository"):
        read_source(str(context))

    assert not app.found.exists()
    # Without that setting, Git runs the filter of the same directory.
    subprocess.run(["git", "status", "--porcelain"], cwd=context, capture_output=True, check=True, timeout=60)
    assert "canary" in app.found.read_text()
    subprocess.run(["kill", Path(f"{app.directory}.daemon").read_text().strip()], check=True, timeout=60)


def test_is_tracked_in_repository_committed_as_files_is_unknown(app: Repository) -> None:
    app.hide_repository("backend", THIEF)
    app.change("backend/main.py", "one\n")

    assert git.is_tracked(app.directory / "backend/main.py") is None
    assert not app.found.exists()


def test_filter_of_the_work_tree_gets_no_secret_and_leaves_no_daemon(app: Repository) -> None:
    app.change("backend/main.py", "two\n")
    app.filter_with(THIEF)

    assert read_source(str(app.directory / "backend")).dirty == (" M backend/main.py",)

    assert "canary" not in app.found.read_text()
    assert app.daemon_is_gone()


def test_work_tree_with_failing_git_status_is_refused(app: Repository) -> None:
    app.filter_with("exit 1")
    app.git("config", "filter.x.required", "true")
    app.change("backend/main.py", "two\n")

    with pytest.raises(PreflightError, match="git status failed"):
        read_source(str(app.directory / "backend"))


@pytest.mark.parametrize("setting", ["core.fsmonitor", "core.hooksPath", "core.sshCommand", "core.pager"])
def test_program_in_git_configuration_does_not_run(app: Repository, setting: str) -> None:
    hooks = app.directory / ".git/own"
    hooks.mkdir()
    program = hooks / "post-index-change"
    program.write_text(f"#!/bin/sh\nenv >'{app.found}'\n")
    program.chmod(0o755)
    app.git("config", setting, str(hooks if setting == "core.hooksPath" else program))
    app.change("backend/main.py", "one\n")

    assert read_source(str(app.directory / "backend")).dirty == ()
    assert git.is_tracked(app.directory / "backend/main.py") is True
    assert git.staged(app.directory / "backend/main.py") == b"one\n"
    assert not app.found.exists()


def test_missing_object_is_not_fetched_by_a_program(app: Repository) -> None:
    blob = app.git("rev-parse", "HEAD:backend/main.py")
    (app.directory / ".git/objects" / blob[:2] / blob[2:]).unlink()
    for name, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::sh -c env%>'{app.found}'",
        "protocol.ext.allow": "always",
    }.items():
        app.git("config", name, value.replace("%>", "% >"))

    assert git.staged(app.directory / "backend/main.py") is None
    assert not app.found.exists()
