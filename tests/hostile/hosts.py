"""Hosts that attack their workstation: real SSH servers whose every command is answered by an attack."""

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
#: What a peak of memory may be, in KiB: the program itself takes some 100 MB with all that it imports.
MOST_KIB = 300 * 1024

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
    """A server whose every command is the shell text, which may read on standard input what it was asked."""
    directory.mkdir(mode=0o700, parents=True)
    program = directory / "attack"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o700)
    return Sshd.start(directory, answer=str(program))


@dataclass(frozen=True)
class Ended:
    """How a task ended: its code, what it said, its peak of memory in KiB, and how long it took."""

    code: int
    output: str
    errors: str
    peak_kib: int
    seconds: float


class Task:
    """One task of the product in a process of its own."""

    def __init__(self, imports: str, call: str) -> None:
        program = _DRIVER.format(imports=imports, call=call)
        self._began = time.monotonic()
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
        """Ctrl-C; the time counts from here."""
        self._began = time.monotonic()
        self.process.send_signal(signal.SIGINT)

    def end(self, seconds: float) -> Ended:
        """Wait for its end. Fails when it takes longer."""
        try:
            output, errors = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            output, errors = self.process.communicate()
            raise AssertionError(f"it did not end within {seconds:g} s:\n{output[-2000:]}\n{errors[-2000:]}") from None
        peak = next((int(row.split()[1]) for row in errors.splitlines() if row.startswith("peak ")), 0)
        return Ended(self.process.returncode, output, errors, peak, time.monotonic() - self._began)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait for something. Fails when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)


def project(directory: Path, **servers: Sshd) -> Path:
    """The folder of a project with these hosts."""
    made = Project(directory)
    made.write()
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
    # One key opens them all: each server lets in the key of the first.
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
    """A port at which the same bytes come again and again before anything is said."""
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
