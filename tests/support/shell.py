"""Run shell text with a real `sh`, stub programs on PATH and a fake clock."""

from __future__ import annotations

import os
import select
import shlex
import subprocess
from pathlib import Path

from rolling_upgrade.engine.model import Application
from rolling_upgrade.engine.shell import Script

#: Values that break shell text with missing quotes.
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
    """Run the text with `sh` from standard input, with a timeout of 30 seconds."""
    body = text.text if isinstance(text, Script) else text
    environment = {**os.environ, "PATH": path or os.environ["PATH"], "LC_ALL": "C"}
    done = subprocess.run(
        ["sh", "-s"], input=body.encode(), capture_output=True, cwd=cwd, env=environment, timeout=30, check=False
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace")
    )


def moved(text: str | Script, app: Application, home: Path) -> str:
    """Move the application's directory in a text, so that tests do not write under /var/lib."""
    body = text.text if isinstance(text, Script) else text
    return body.replace(app.home, str(home))


class Programs:
    """A directory of stub programs at the front of PATH, which records their calls."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self._calls = directory.parent / "calls"
        self._calls.touch()

    @property
    def path(self) -> str:
        return f"{self.directory}:{os.environ['PATH']}"

    def add(self, name: str, body: str = ":") -> None:
        """Add a program that records its arguments and runs the body, in which `$here` is a scratch directory."""
        program = self.directory / name
        notes = shlex.quote(str(self.directory.parent))
        program.write_text(
            # One printf, so that the records of two hosts do not mix.
            f"#!/bin/sh\nhere={notes} record='\\1%s\\0'\nfor word do record=\"$record%s\\0\"; done\n"
            f'printf "$record" {name} "$@" >>"$here/calls"\n{body}\n',
            "utf-8",
        )
        program.chmod(0o755)

    def sequence(self, name: str, lines: list[str]) -> str:
        """Return a body that prints the next line at each call, and then repeats the last one."""
        (self.directory.parent / f"{name}.lines").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return (
            f'n=$(cat "$here/{name}.count" 2>/dev/null || echo 0); n=$((n + 1)); echo "$n" >"$here/{name}.count"\n'
            f'last=$(wc -l <"$here/{name}.lines"); if [ "$n" -gt "$last" ]; then n=$last; fi\n'
            f'sed -n "${{n}}p" "$here/{name}.lines"'
        )

    def clock(self, now: int = 1_000_000) -> None:
        """Add a `date +%s`, an uptime and a `sleep` with a fake clock: sleeping advances it at once."""
        (self.directory.parent / "clock").write_text(f"{now}\n", "ascii")
        show = "awk '{ print int($1) }' \"$here/clock\""
        self.add("date", show)
        exact = 'awk \'{ printf "%.2f\\n", $1 }\' "$here/clock"'
        self.add(
            "cut",
            f'case "$*" in "-d . -f 1 /proc/uptime") {show} ;; "-d   -f 1 /proc/uptime") {exact} ;; '
            '*) exec /usr/bin/cut "$@" ;; esac',
        )
        self.add(
            "sleep",
            'awk -v n="$1" \'{ printf "%.2f\\n", $1 + n }\' "$here/clock" >"$here/clock.new"\n'
            'mv "$here/clock.new" "$here/clock"',
        )

    def calls(self, name: str = "") -> list[list[str]]:
        """Return the arguments of every call so far, the name of the program first."""
        rows = self._calls.read_bytes().decode().split("\1")[1:]
        found = [row.split("\0")[:-1] for row in rows]
        return [call for call in found if not name or call[0] == name]


class Signal:
    """A named pipe that synchronises a script and a test."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._file = os.open(path, os.O_RDWR)

    def wait(self) -> str:
        """Wait up to 30 seconds for the script to write, and return its text."""
        ready, _, _ = select.select([self._file], [], [], 30)
        assert ready, f"nothing arrived on {self.path.name}"
        return os.read(self._file, 4096).decode()

    def give(self, text: str = "go\n") -> None:
        os.write(self._file, text.encode())

    def close(self) -> None:
        os.close(self._file)
