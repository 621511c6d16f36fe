"""Git repositories whose own settings name programs: what runs of them, with which environment, and what is left."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

#: Writes down its environment, leaves a daemon behind, and passes the content on.
THIEF = (
    'env >"{folder}.found"; '
    'setsid -f sh -c \'echo $$ >"$0.half"; mv "$0.half" "$0"; exec sleep 300\' "{folder}.daemon" '
    "</dev/null >/dev/null 2>&1; "
    'until [ -s "{folder}.daemon" ]; do sleep 0.02; done; cat'
)


class Repository:
    """A repository of one commit; `found` is where THIEF writes down the environment that it got."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self.folder = folder
        self.found = Path(f"{folder}.found")
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        self.git("init", "--quiet")
        self.commit()

    def git(self, *words: str) -> str:
        """What git says to these words."""
        who = ["-c", "user.name=ann", "-c", "user.email=ann@lab.test"]
        done = subprocess.run(
            ["git", *who, *words], cwd=self.folder, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.strip()

    def commit(self) -> None:
        """Commit everything that is there."""
        self.git("add", "--force", ".")
        self.git("commit", "--quiet", "--message", "a change")

    def change(self, name: str, content: str) -> None:
        """Change a file, at another time than the index has it."""
        path = self.folder / name
        path.write_text(content)
        os.utime(path, (1, 1))

    def filter_with(self, program: str) -> None:
        """Have Git run a program on each file, named in `.git` alone, as a suite can write it."""
        (self.folder / ".git/info").mkdir(exist_ok=True)
        (self.folder / ".git/info/attributes").write_text("* filter=x\n")
        self.git("config", "filter.x.clean", program.format(folder=self.folder))

    def hide_repository(self, inner: str, program: str) -> None:
        """Commit the files of a bare repository in a folder, whose work tree is that folder and whose filter runs."""
        folder = self.folder / inner
        other = Repository(self.folder.with_name("other"), {path.name: path.read_text() for path in folder.iterdir()})
        for name in ("HEAD", "index", "objects", "refs"):
            source = other.folder / ".git" / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
        escaped = program.format(folder=self.folder).replace("\\", "\\\\").replace('"', '\\"')
        (folder / "config").write_text(
            "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tworktree = .\n"
            f'[filter "x"]\n\tclean = "{escaped}"\n'
        )
        (folder / ".gitattributes").write_text("* filter=x\n")
        (folder / "refs/keep").write_text("")
        self.commit()

    def daemon_is_gone(self) -> bool:
        """Whether what THIEF left running has ended."""
        return not Path("/proc", Path(f"{self.folder}.daemon").read_text().strip()).exists()
