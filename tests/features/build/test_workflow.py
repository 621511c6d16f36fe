"""`inv build` with a stand-in for Podman: commands, output, and failures that prevent a push."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from rolling_upgrade.errors import ConfigError, ExitCode, StepFailed
from rolling_upgrade.features.build.workflow import build
from tests.support.project import Project
from tests.support.shell import Programs

#: Builds write the image's id, pushes its digest; `fail` beside the programs makes a build fail.
PODMAN = """\
case "$1" in
build)
  [ ! -e "$here/fail" ] || { echo "no such base image"; exit 3; }
  while [ "$#" -gt 1 ]; do if [ "$1" = --iidfile ]; then echo sha256:ab > "$2"; fi; shift; done ;;
push)
  while [ "$#" -gt 1 ]; do if [ "$1" = --digestfile ]; then echo sha256:cd > "$2"; fi; shift; done ;;
image) echo "sha256:ab 1000" ;;
esac"""


@pytest.fixture
def source(project: Project, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose backend is built from a Git work tree, with a stand-in for Podman."""
    monkeypatch.delenv("DEPLOY_ENV", raising=False)
    context = tmp_path / "backend"
    context.mkdir()
    (context / "Containerfile").write_text("FROM scratch\n")
    git = ["git", "-C", str(context), "-c", "user.name=ann", "-c", "user.email=ann@example.org"]
    subprocess.run(["git", "init", "-q", str(context)], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "first"], check=True)
    project.edit("deploy/services.yaml", "    image: BACKEND_IMAGE\n", _section(context))
    programs.add("podman", PODMAN)
    monkeypatch.setenv("PATH", programs.path)
    return project


def _section(context: Path) -> str:
    return f"    image: BACKEND_IMAGE\n    build: {{context: {context}}}\n"


def test_build_and_push_print_reference_and_digest(
    source: Project, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build("demo", root=source.root, tag="v9", push=True, json=True) is ExitCode.DONE

    result = json.loads(capsys.readouterr().out)
    (image,) = result["images"]
    assert (result["tag"], image["image"]) == ("v9", "registry.example.org/memoryark/backend:v9")
    assert image["digest"] == "sha256:cd"
    assert [call[1] for call in programs.calls("podman") if call[1] in {"build", "push"}] == ["build", "push"]


def test_dry_run_prints_the_command_and_runs_none(
    source: Project, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build("demo", root=source.root, tag="v9", dry_run=True) is ExitCode.DONE

    assert "podman build --tag registry.example.org/memoryark/backend:v9" in capsys.readouterr().out
    assert programs.calls("podman") == []


def test_failed_build_pushes_nothing(source: Project, programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "fail").touch()

    with pytest.raises(StepFailed, match="no such base image"):
        build("demo", root=source.root, tag="v9", push=True)

    assert not [call for call in programs.calls("podman") if call[1] == "push"]


def test_unknown_service_is_refused(source: Project) -> None:
    with pytest.raises(ConfigError, match="command line"):
        build("demo", root=source.root, tag="v9", service=("frontend",))
