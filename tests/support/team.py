"""A project of a team whose env file can be encrypted for ann, bob and CI; ann's key is on this machine."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

from rolling_upgrade.config.encryption.recipients import Recipient
from tests.support.encryption_keys import age_key, public, ssh_key
from tests.support.project import ROOT, Project

SECRET = "correct-horse-battery"
#: Runs a task of this clone in the project that it is started in, as `inv` would.
PROGRAM = (
    "import sys; from fabfile import namespace; from invoke import Program; Program(namespace=namespace).run(sys.argv)"
)
IMPORTS = {"PYTHONPATH": str(ROOT)}


class Team:
    """The project and the keys of the team."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "project").mkdir()
        self.project = Project(folder / "project")
        self.root = self.project.root
        self.env_file.chmod(0o600)
        self.home = folder / "home"
        self.own_key = ssh_key(self.home / ".ssh/id_ed25519", "ann@laptop")
        self.ann = public(self.own_key)
        self.bob = public(ssh_key(folder / "bob", "bob@desk"))
        self.ci_file = folder / "ci.txt"
        self.ci = age_key(self.ci_file, "CI")

    @property
    def env_file(self) -> Path:
        return self.root / "deploy/demo.env"

    @property
    def recipients_file(self) -> Path:
        return self.root / "deploy/recipients/demo.txt"

    @property
    def mode(self) -> str:
        return f"{self.env_file.stat().st_mode & 0o7777:04o}"

    def listing(self, *recipients: Recipient) -> None:
        """Write the recipients file."""
        self.project.write(
            "deploy/recipients/demo.txt", "# team\n" + "".join(f"{recipient.line}\n" for recipient in recipients)
        )

    def git(self, *words: str) -> str:
        """Run git in the project; the first call creates the repository."""
        if not (self.root / ".git").exists():
            subprocess.run(["git", "init", "-q", str(self.root)], check=True, timeout=30)
        settings = ["-c", "user.name=ann", "-c", "user.email=ann@example.org"]
        command = ["git", "-C", str(self.root), *settings, *words]
        return subprocess.run(command, check=True, timeout=30, capture_output=True, text=True).stdout

    def files(self) -> set[str]:
        """Return the files of the project, without Git's."""
        found = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        return {str(path) for path in found if path.parts[0] != ".git"}

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        """Start a task in another process without a terminal."""
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            cwd=self.root,
            env={**os.environ, **IMPORTS, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def typed(self, answer: str, *words: str) -> tuple[int, str, str]:
        """Run a task on a terminal and give every prompt this answer. Return exit code, output and terminal text."""
        ours, theirs = pty.openpty()
        out = self.folder / "stdout"
        with out.open("wb") as stdout:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *words],
                cwd=self.root,
                env={**os.environ, **IMPORTS},
                stdin=theirs,
                stdout=stdout,
                stderr=theirs,
                start_new_session=True,
            )
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # Linux reports EIO when the other end is closed
            while piece := os.read(ours, 4096):
                shown += piece
                if shown.endswith(b": "):
                    os.write(ours, f"{answer}\n".encode())
        os.close(ours)
        return process.wait(30), out.read_text(), shown.decode()

    def inv(self, *words: str, **environ: str) -> tuple[int, str, str]:
        """Run a task. Return exit code, standard output and standard error."""
        process = self.start(*words, **environ)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err
