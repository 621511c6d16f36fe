"""A service that is built from a Git work tree, and a stand-in for Podman that builds and pushes its image."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.project import Project
from tests.support.shell import Programs

#: The digest of every pushed image.
PUSHED = "sha256:" + "cd" * 32
#: Builds write the image's id, pushes its digest. The file `fail` beside the programs names a command and a word of its
#: arguments that make it fail.
PODMAN = f"""\
if [ -e "$here/fail" ]; then
  read -r command word <"$here/fail"
  case "$1 $*" in "$command "*"$word"*) echo "no such base image"; exit 3 ;; esac
fi
case "$1" in
build)
  while [ "$#" -gt 1 ]; do if [ "$1" = --iidfile ]; then echo sha256:ab > "$2"; fi; shift; done ;;
push)
  while [ "$#" -gt 1 ]; do if [ "$1" = --digestfile ]; then echo {PUSHED} > "$2"; fi; shift; done ;;
images) echo sha256:99 ;;
image) case "$*" in *sha256:99) echo "sha256:99 40000000" ;; *) echo "sha256:ab 50000000" ;; esac ;;
esac"""


def add_source(project: Project, programs: Programs, context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the project's backend from a new Git work tree, with the stand-in for Podman."""
    monkeypatch.delenv("DEPLOY_ENV", raising=False)
    context.mkdir()
    (context / "Containerfile").write_text("FROM scratch\n")
    git = ["git", "-C", str(context), "-c", "user.name=ann", "-c", "user.email=ann@example.org"]
    subprocess.run(["git", "init", "-q", str(context)], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "first"], check=True)
    declare(project, "BACKEND_IMAGE", context)
    programs.add("podman", PODMAN)
    monkeypatch.setenv("PATH", programs.path)


def declare(project: Project, image: str, context: Path) -> None:
    """Give the service with this image a `build:` section."""
    line = f"    image: {image}\n"
    project.edit("deploy/services.yaml", line, f"{line}    build: {{context: {context}}}\n")


def fail(programs: Programs, command: str, word: str = "") -> None:
    """Make a command of the stand-in fail, if one of its arguments contains the word."""
    (programs.directory.parent / "fail").write_text(f"{command} {word}\n")


def commands(programs: Programs, *names: str) -> list[str]:
    """Return the calls of these commands in order, each with the repository of its image."""
    return [
        f"{call[1]} {word.rpartition('/')[2].partition(':')[0]}"
        for call in programs.calls("podman")
        if call[1] in names
        for word in call
        if word.startswith("registry.example.org/")
    ]
