"""How the tests of shell text run it: a real `sh`, stand-ins for programs on PATH, a clock that they share."""

from __future__ import annotations

import os
import select
import shlex
import subprocess
from pathlib import Path

from fabfile.commands.shell import Script
from fabfile.model import Application

#: Values that break text whenever something is not quoted.
HOSTILE = (
    "",
    " leading and  double spaces ",
    'it\'s "quoted" and `ticked`',
    "$(touch pwned) ${HOME} $$ `touch pwned`",
    "; touch pwned; #",
    "two\nlines\n\nand an end\n",
    "tab\tback\\slash \\n %s %d !! ~ * ? [a]",
    "-n --help -e",
    "繁體中文 ünïcödé 🚀",
    "' || touch pwned || '",
)


def sh(text: str | Script, *, path: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the text under `sh`, given on standard input; half a minute at the most."""
    body = text.text if isinstance(text, Script) else text
    environment = {**os.environ, "PATH": path or os.environ["PATH"], "LC_ALL": "C"}
    done = subprocess.run(
        ["sh", "-s"], input=body.encode(), capture_output=True, cwd=cwd, env=environment, timeout=30, check=False
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace")
    )


def moved(text: str | Script, app: Application, home: Path) -> str:
    """The text with the application's directory elsewhere: a test writes nothing under /var/lib."""
    body = text.text if isinstance(text, Script) else text
    return body.replace(app.home, str(home))


class Programs:
    """A directory of small programs that come first on PATH; each call's words are kept."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self._calls = directory.parent / "calls"
        self._calls.touch()

    @property
    def path(self) -> str:
        return f"{self.directory}:{os.environ['PATH']}"

    def add(self, name: str, body: str = ":") -> None:
        """A program that notes its words and runs the body, in which `$here` is a directory for its notes."""
        program = self.directory / name
        notes = shlex.quote(str(self.directory.parent))
        program.write_text(
            f'#!/bin/sh\nhere={notes}\n{{ printf "%s\\0" {name} "$@"; printf "\\1"; }} >>"$here/calls"\n{body}\n',
            "utf-8",
        )
        program.chmod(0o755)

    def sequence(self, name: str, lines: list[str]) -> str:
        """A body that prints the next of the lines at each call, and the last one from then on."""
        (self.directory.parent / f"{name}.lines").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return (
            f'n=$(cat "$here/{name}.count" 2>/dev/null || echo 0); n=$((n + 1)); echo "$n" >"$here/{name}.count"\n'
            f'last=$(wc -l <"$here/{name}.lines"); if [ "$n" -gt "$last" ]; then n=$last; fi\n'
            f'sed -n "${{n}}p" "$here/{name}.lines"'
        )

    def clock(self, now: int = 1_000_000) -> None:
        """A `date +%s` and a `sleep` with a time of their own: sleeping takes none and moves the clock."""
        (self.directory.parent / "clock").write_text(f"{now}\n", "ascii")
        self.add("date", "awk '{ print int($1) }' \"$here/clock\"")
        self.add(
            "sleep",
            'awk -v n="$1" \'{ printf "%.2f\\n", $1 + n }\' "$here/clock" >"$here/clock.new"\n'
            'mv "$here/clock.new" "$here/clock"',
        )

    def calls(self, name: str = "") -> list[list[str]]:
        """The words of every call so far, the program's name first."""
        rows = self._calls.read_bytes().decode().split("\1")[:-1]
        found = [row.split("\0")[:-1] for row in rows]
        return [call for call in found if not name or call[0] == name]


class Signal:
    """A named pipe on which a script and a test wait for each other."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._file = os.open(path, os.O_RDWR)

    def wait(self) -> str:
        """What the script wrote, once it has; half a minute at the most."""
        ready, _, _ = select.select([self._file], [], [], 30)
        assert ready, f"nothing arrived on {self.path.name}"
        return os.read(self._file, 4096).decode()

    def give(self, text: str = "go\n") -> None:
        os.write(self._file, text.encode())

    def close(self) -> None:
        os.close(self._file)
