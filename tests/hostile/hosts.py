"""Hosts that attack the workstation: real SSH servers that answer every command with an attack."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.injection.project import Project
from tests.support.sshd import Sshd

ROOT = Path(__file__).parents[2]
#: The limit of the peak memory in KiB. The program with all its imports uses about 100 MB.
MAX_KIB = 300 * 1024

_DRIVER = """\
import atexit, sys
from pathlib import Path
from invoke.exceptions import Exit
from rolling_upgrade.console.task import exit_with

def peak():
    row = next(row for row in open("/proc/self/status") if row.startswith("VmHWM"))
    print("peak", row.split()[1], file=sys.stderr)

atexit.register(peak)
{imports}
print("ready", file=sys.stderr, flush=True)
try:
    exit_with(lambda: {call})
except Exit as error:
    sys.exit(error.code)
"""


def attacker(directory: Path, text: str) -> Sshd:
    """Start a server that runs this shell text for every command; the text gets the command's standard input."""
    directory.mkdir(mode=0o700, parents=True)
    program = directory / "attack"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o700)
    return Sshd.start(directory, answer=str(program))


@dataclass(frozen=True)
class Result:
    """The result of a task: exit code, output, peak memory in KiB, and duration."""

    code: int
    output: str
    errors: str
    peak_kib: int
    seconds: float


class Task:
    """One task of the product in another process."""

    def __init__(self, imports: str, call: str) -> None:
        program = _DRIVER.format(imports=imports, call=call)
        self._started_at = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NO_COLOR": "1"},
        )

    def interrupt(self) -> None:
        """Send Ctrl-C. The duration of the result starts here."""
        self._started_at = time.monotonic()
        self.process.send_signal(signal.SIGINT)

    def wait(self, seconds: float) -> Result:
        """Wait for the result. Fails after so many seconds."""
        try:
            output, errors = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            output, errors = self.process.communicate()
            raise AssertionError(f"it did not end within {seconds:g} s:\n{output[-2000:]}\n{errors[-2000:]}") from None
        peak = next((int(row.split()[1]) for row in errors.splitlines() if row.startswith("peak ")), 0)
        return Result(self.process.returncode, output, errors, peak, time.monotonic() - self._started_at)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Poll a condition until it holds. Fails at the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.02)


def project(directory: Path, **servers: Sshd) -> Path:
    """Write a project with these hosts. Return its directory."""
    Project(directory).write()
    path = directory / "hosts.yaml"
    content = yaml.safe_load(path.read_text("utf-8"))
    entry = content["environments"]["demo"]
    host = entry["hosts"].pop("web1")
    known = ""
    for name, server in servers.items():
        changes = {"address": "127.0.0.1", "port": str(server.port), "user": getpass.getuser()}
        entry["hosts"][name] = {**host, **changes, "jump": "none"}
        known += Path(server.known()).read_text()
    (directory / "known").write_text(known)
    # Every server accepts the key of the first one.
    first = next(iter(servers.values())).directory
    for server in servers.values():
        (server.directory / "authorized_keys").write_text((first / "user.pub").read_text())
    entry |= {"known_hosts": str(directory / "known"), "identity_file": str(first / "user"), "jump": "none"}
    del entry["age_identity"], entry["recipients_file"]
    entry["rollout"] = {"connect_timeout_seconds": "10"}
    path.write_text(yaml.safe_dump(content), "utf-8")
    return directory


@contextmanager
def greeting(content: bytes, pause_seconds: float = 0) -> Iterator[int]:
    """Run a server that sends these bytes repeatedly to every client."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    try:
                        while True:
                            peer.sendall(content)
                            time.sleep(pause_seconds)
                    except OSError:
                        continue

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
