"""The program that runs on hosts, as real processes on this machine, started as a workstation starts it over SSH."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rolling_upgrade import rendering
from rolling_upgrade.engine import journal as journals
from rolling_upgrade.engine import remote_run
from rolling_upgrade.engine.host_run import RunDocument, RunEnd
from rolling_upgrade.engine.journal import END, Journal
from rolling_upgrade.engine.serialization import from_plain
from rolling_upgrade.engine.shell import Script
from tests.hostile.hosts import wait_until

FOLLOWING = json.dumps(journals.FOLLOWING).encode() + b"\n"
#: The Python versions of supported hosts.
VERSIONS = ("3.10", "3.11", "3.12", "3.13")


def interpreter(version: str) -> Path | None:
    """Return a Python of this version, from pyenv or from the system; None without one."""
    name = f"python{version}"
    installed = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/{name}"))
    # A shim of pyenv exists even for a version that it does not run.
    path = os.pathsep.join(place for place in os.environ["PATH"].split(os.pathsep) if not place.endswith("/shims"))
    found = installed[-1] if installed else shutil.which(name, path=path)
    return Path(found) if found else None


class Client:
    """One connection of a workstation: a script in a session of its own, with its words and its output."""

    def __init__(self, text: str, output: Path, umask: int) -> None:
        self.output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                ["sh", "-s"],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=umask,
            )
        assert self.process.stdin is not None
        self.stdin = self.process.stdin
        self.write(f"main() {{\n{text}\n}}\nmain 3<&0 </dev/null; exit\n".encode())

    def write(self, data: bytes) -> None:
        self.stdin.write(data)
        self.stdin.flush()

    def say(self, *words: str) -> None:
        """Send control words, once the follower has printed its first line."""
        self.wait_for(FOLLOWING)
        self.write("".join(f"{word}\n" for word in words).encode())

    def wait_for(self, text: bytes) -> None:
        """Wait for a text in the output."""
        wait_until(lambda: text in self.output.read_bytes(), f"{text!r} in {self.output.read_bytes()!r}")

    def wait_for_state(self, state: str) -> None:
        self.wait_for(json.dumps({"state": state}).encode())

    def disconnect_after_end(self) -> int:
        """Read the end of the run, disconnect, and return the exit status of the follower."""
        self.wait_for(b'{"end"')
        self.stdin.close()
        return self.wait()

    def wait(self) -> int:
        """Wait until the host closes the connection, and return the exit status."""
        return self.process.wait(30)

    def kill(self) -> None:
        """Disconnect: without words and without a reader."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        with suppress(OSError):
            self.stdin.close()


class EngineHost:
    """A host with its runs: an application's directory on this machine, and a Python for the engine."""

    def __init__(self, home: Path, scratch: Path, python: Path = Path(sys.executable)) -> None:
        self.home = home
        self._scratch, self._programs = scratch, scratch / "bin"
        self._clients: list[Client] = []
        self._programs.mkdir(parents=True, exist_ok=True)
        self._program = self._programs / "python3"
        self._program.symlink_to(python)

    def start(self, document: RunDocument, position: int = 0, *, umask: int = 0o022) -> Client:
        """Start a run, or start it again, and follow it from a byte of its events."""
        return self.execute(remote_run.start(document, rendering.engine(), position, with_engine=True), umask=umask)

    def execute(self, script: Script, *, umask: int = 0o022) -> Client:
        """Execute a script as `FabricHost.stream` does."""
        text = script.text.replace("PATH=/usr/local/sbin:", f"PATH={self._programs}:/usr/local/sbin:", 1)
        client = Client(text, self._scratch / f"output-{len(self._clients)}", umask)
        self._clients.append(client)
        return client

    def start_directly(self, run_id: str, *, umask: int) -> Client:
        """Run the engine that an earlier start has brought, without the script around it."""
        engine = self.home / "journal" / run_id / "engine.pyz"
        return self.execute(Script(f"exec {self._program} -I {engine} run {self.home} {run_id} 0 <&3"), umask=umask)

    def journal(self, run_id: str = "r2") -> Journal:
        return Journal(self.home, run_id)

    def end(self, run_id: str = "r2") -> RunEnd:
        """Wait for the end of a run and for the exit of its executor."""
        wait_until(lambda: self._find_end(run_id) is not None, f"the end of the run:\n{self._log(run_id)}")
        self.wait_for_exit(run_id)
        end: RunEnd = from_plain(RunEnd, self._find_end(run_id))
        return end

    def wait_for_exit(self, run_id: str = "r2") -> None:
        """Wait until the run has no executor."""
        wait_until(lambda: not self.journal(run_id).is_alive(), "the exit of the executor")

    def executor(self) -> int:
        """Return the id of the process that executes the run: the fork of a follower, which leads its own session."""
        followers = {client.process.pid for client in self._clients}
        [found] = [pid for pid in self.processes() if os.getsid(pid) == pid and pid not in followers]
        return found

    def processes(self) -> list[int]:
        """Return the ids of all followers and executors."""
        return [pid for pid, line in command_lines().items() if f"{self.home}/journal/".encode() in line]

    def close(self) -> None:
        """Kill what a failed test left."""
        for client in self._clients:
            client.kill()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _find_end(self, run_id: str) -> Mapping[str, Any] | None:
        return next((message[END] for message in self.journal(run_id).messages() if END in message), None)

    def _log(self, run_id: str) -> str:
        log = self.journal(run_id).path / "engine.log"
        return log.read_text() if log.exists() else ""


def command_lines() -> dict[int, bytes]:
    """Return the command line of each process."""
    return {int(path.name): line for path in Path("/proc").glob("[0-9]*") if (line := _read(path / "cmdline"))}


def environments() -> Iterator[bytes]:
    """Yield the environment of each other process."""
    for path in Path("/proc").glob("[0-9]*"):
        if int(path.name) != os.getpid():
            yield _read(path / "environ")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
