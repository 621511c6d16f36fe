"""Git repositories whose settings run programs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

#: A filter that records its environment, leaves a daemon running, and passes the content through.
THIEF = (
    'env >"{folder}.found"; '
    'setsid -f sh -c \'echo $$ >"$0.half"; mv "$0.half" "$0"; exec sleep 300\' "{folder}.daemon" '
    "</dev/null >/dev/null 2>&1; "
    'until [ -s "{folder}.daemon" ]; do sleep 0.02; done; cat'
)


class Repository:
    """A repository with one commit; THIEF records its environment in the file `found`."""

    def __init__(self, directory: Path, files: Mapping[str, str]) -> None:
        self.directory = directory
        self.found = Path(f"{directory}.found")
        for name, content in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        self.git("init", "--quiet")
        self.commit()

    def git(self, *words: str) -> str:
        """Run git and return its output."""
        who = ["-c", "user.name=ann", "-c", "user.email=ann@lab.test"]
        done = subprocess.run(
            ["git", *who, *words], cwd=self.directory, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.strip()

    def commit(self) -> None:
        """Commit all files, ignored ones too."""
        self.git("add", "--force", ".")
        self.git("commit", "--quiet", "--message", "a change")

    def change(self, name: str, content: str) -> None:
        """Change a file and give it another time than the index has."""
        path = self.directory / name
        path.write_text(content)
        os.utime(path, (1, 1))

    def filter_with(self, program: str) -> None:
        """Make Git run a program on each file through settings below `.git`, which a suite can write."""
        (self.directory / ".git/info").mkdir(exist_ok=True)
        (self.directory / ".git/info/attributes").write_text("* filter=x\n")
        self.git("config", "filter.x.clean", program.format(folder=self.directory))

    def hide_repository(self, inner: str, program: str) -> None:
        """Commit the files of a bare repository with a filter; its work tree is its own directory."""
        directory = self.directory / inner
        files = {path.name: path.read_text() for path in directory.iterdir()}
        other = Repository(self.directory.with_name("other"), files)
        for name in ("HEAD", "index", "objects", "refs"):
            source = other.directory / ".git" / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, directory / name)
        escaped = program.format(folder=self.directory).replace("\\", "\\\\").replace('"', '\\"')
        (directory / "config").write_text(
            "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tworktree = .\n"
            f'[filter "x"]\n\tclean = "{escaped}"\n'
        )
        (directory / ".gitattributes").write_text("* filter=x\n")
        (directory / "refs/keep").write_text("")
        self.commit()

    def daemon_is_gone(self) -> bool:
        """Return whether the daemon of THIEF has ended."""
        return not Path("/proc", Path(f"{self.directory}.daemon").read_text().strip()).exists()
