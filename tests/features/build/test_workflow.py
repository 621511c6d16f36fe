"""`inv build` with a stand-in for Podman: commands, output, and failures that prevent a push."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rolling_upgrade.errors import ConfigError, ExitCode, PreflightError, StepFailed
from rolling_upgrade.features.build.workflow import build
from tests.support.image_builds import PUSHED, add_source, commands, declare, fail
from tests.support.project import Project
from tests.support.shell import Programs


@pytest.fixture
def source(project: Project, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose backend is built from a Git work tree, with a stand-in for Podman."""
    add_source(project, programs, tmp_path / "backend", monkeypatch)
    return project


def test_build_and_push_print_reference_and_digest(
    source: Project, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build("demo", root=source.root, tag="v9", push=True, json=True) is ExitCode.DONE

    result = json.loads(capsys.readouterr().out)
    (image,) = result["images"]
    assert (result["tag"], image["image"]) == ("v9", "registry.example.org/memoryark/backend:v9")
    assert image["digest"] == PUSHED
    assert [call[1] for call in programs.calls("podman") if call[1] in {"build", "push"}] == ["build", "push"]


def test_dry_run_prints_the_command_and_runs_none(
    source: Project, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build("demo", root=source.root, tag="v9", dry_run=True) is ExitCode.DONE

    assert "podman build --tag registry.example.org/memoryark/backend:v9" in capsys.readouterr().out
    assert programs.calls("podman") == []


def test_build_prints_size_change_and_that_nothing_was_pushed(
    source: Project, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build("demo", root=source.root, tag="v9") is ExitCode.DONE

    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith("backend  registry.example.org/memoryark/backend:v9  ")
    assert row.endswith("50.0 MB  +10.0 MB, +25%  not pushed")
    assert commands(programs, "push") == []


def test_images_are_pushed_only_when_all_are_built(source: Project, programs: Programs, tmp_path: Path) -> None:
    declare(source, "FRONTEND_IMAGE", tmp_path / "backend")

    assert build("demo", root=source.root, tag="v9", push=True) is ExitCode.DONE

    assert commands(programs, "build", "push") == ["build backend", "build frontend", "push backend", "push frontend"]


def test_failed_build_builds_no_further_image_and_pushes_none(
    source: Project, programs: Programs, tmp_path: Path
) -> None:
    declare(source, "FRONTEND_IMAGE", tmp_path / "backend")
    fail(programs, "build", "memoryark/backend")

    with pytest.raises(StepFailed, match="no such base image"):
        build("demo", root=source.root, tag="v9", push=True)

    assert commands(programs, "build", "push") == ["build backend"]


def test_failed_push_is_reported_and_pushes_no_further_image(
    source: Project, programs: Programs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(source, "FRONTEND_IMAGE", tmp_path / "backend")
    fail(programs, "push", "memoryark/backend")

    with pytest.raises(StepFailed, match="memoryark/backend:v9 was not pushed"):
        build("demo", root=source.root, tag="v9", push=True, json=True)

    assert commands(programs, "push") == ["push backend"]
    assert capsys.readouterr().out == ""


def test_refused_scan_pushes_nothing(source: Project, programs: Programs) -> None:
    scan = "building: {scan: [scanner, image]}\n"
    source.write("deploy/services.yaml", scan + (source.root / "deploy/services.yaml").read_text())
    programs.add("scanner", "echo 'CVE-2026-1 critical'; exit 1")

    with pytest.raises(StepFailed, match=r"the scan refused registry.*(?s:.)*CVE-2026-1 critical"):
        build("demo", root=source.root, tag="v9", push=True)

    assert programs.calls("scanner") == [["scanner", "image", "registry.example.org/memoryark/backend:v9"]]
    assert commands(programs, "push") == []


def test_refused_login_pushes_nothing_and_shows_no_password(
    source: Project, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    login = {"REGISTRY": "registry.example.org", "REGISTRY_USERNAME": "ci", "REGISTRY_PASSWORD": "wrong-horse-staple"}
    source.env(login)
    fail(programs, "login")

    with pytest.raises(PreflightError, match=r"registry\.example\.org refused ci; nothing was pushed") as caught:
        build("demo", root=source.root, tag="v9", push=True)

    assert commands(programs, "push") == []
    captured = capsys.readouterr()
    calls = str(programs.calls("podman"))
    assert "wrong-horse-staple" not in f"{caught.value}{captured.out}{captured.err}{calls}"


def test_changed_work_tree_is_refused_and_built_with_a_warning_under_force(
    source: Project, programs: Programs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "backend/new-file").touch()

    with pytest.raises(PreflightError, match=r"the work tree is not clean; nothing was built\.\n.*new-file"):
        build("demo", root=source.root, tag="v9")
    assert commands(programs, "build") == []

    assert build("demo", root=source.root, tag="v9", force=True, json=True) is ExitCode.DONE
    captured = capsys.readouterr()
    assert "new-file; built with these changes" in captured.err
    assert json.loads(captured.out)["tag"] == "v9"


def test_build_without_environment_uses_the_one_with_an_env_file(
    source: Project, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(None, root=source.root, tag="v9", json=True) is ExitCode.DONE

    assert json.loads(capsys.readouterr().out)["images"][0]["service"] == "backend"


def test_build_without_environment_between_different_ones_is_refused(source: Project, programs: Programs) -> None:
    source.edit(
        "hosts.yaml",
        "environments:\n",
        "environments:\n  other: {hosts: {web3: {address: 192.0.2.13, roles: [web]}}}\n",
    )
    values = (source.root / "deploy/demo.env").read_text()
    source.write("deploy/other.env", values.replace("memoryark/backend", "memoryark/fork"))

    with pytest.raises(ConfigError, match="No environment was named, and other, demo differ"):
        build(None, root=source.root, tag="v9")

    assert commands(programs, "build") == []


def test_unknown_service_is_refused(source: Project) -> None:
    with pytest.raises(ConfigError, match="command line"):
        build("demo", root=source.root, tag="v9", service=("frontend",))
