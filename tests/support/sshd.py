"""A real OpenSSH server on loopback, with keys of its own, started and stopped by its process id."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rolling_upgrade.engine.model import Target
from rolling_upgrade.ssh.fabric_host import FabricHost
from tests.support.sample import application

#: The server's folder of privilege separation. Source: sshd(8).
_RUN = Path("/run/sshd")


def keygen(path: Path) -> Path:
    """A new ed25519 key without a passphrase."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Sshd:
    """A server that lets one key in, and what a client needs to know of it."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes]
    log: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, directory: Path, port: int = 0, *, answer: str = "") -> Sshd:
        """Start it and wait until it listens; `answer` is a program that answers in the place of every command.

        Raises AssertionError when the machine has no OpenSSH server."""
        program = shutil.which("sshd", path=f"/usr/sbin:/sbin:{os.environ['PATH']}")
        assert program, "sshd is missing: make setup installs the Debian package openssh-server"
        _RUN.mkdir(mode=0o755, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        port = port or free_port()
        for name in ("host", "user", "stranger"):
            if not (directory / name).exists():
                keygen(directory / name)
        shutil.copy(directory / "user.pub", directory / "authorized_keys")
        (directory / "config").write_text(_config(directory, port) + (f"ForceCommand {answer}\n" if answer else ""))
        process = subprocess.Popen(
            [program, "-D", "-e", "-f", directory / "config"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        server = cls(directory, port, process)
        server._await_listening()
        return server

    def _await_listening(self) -> None:
        """Read its log until it says that it listens. Raises AssertionError when it ends before."""
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line.decode())
            if b"Server listening" in line:
                # Its log has to be read on: a full pipe would hold the server up.
                threading.Thread(target=_read_on, args=(self.process.stderr, self.log), daemon=True).start()
                return
        raise AssertionError(f"sshd did not start: {''.join(said)}")

    def stop(self) -> None:
        """End the server and every session of it."""
        self.drop_sessions()
        self.process.terminate()
        self.process.wait(timeout=20)

    def ended(self) -> list[str]:
        """What it says of a connection, once it has said how it ended."""
        deadline = time.monotonic() + 20
        while not any(line.startswith(("Connection closed", "Connection reset", "Disconnected")) for line in self.log):
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)
        return list(self.log)

    def sessions(self) -> list[int]:
        """The process ids of its sessions."""
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def drop_sessions(self) -> None:
        """Kill its sessions: to a client, the connection drops."""
        for pid in self.sessions():
            below = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
            for child in (pid, *(int(found) for found in below.stdout.split())):
                try:
                    name = Path(f"/proc/{child}/comm").read_text().strip()
                    if name == "sshd":
                        os.kill(child, signal.SIGKILL)
                except (ProcessLookupError, FileNotFoundError):
                    continue

    def known(self, *names: str, key: str = "host") -> str:
        """The path of a known_hosts file that has this server's key (or another) under these names."""
        kind, code, *_ = (self.directory / f"{key}.pub").read_text().split()
        path = self.directory / f"known_hosts.{key}"
        listed = names or (f"[127.0.0.1]:{self.port}",)
        path.write_text("".join(f"{name} {kind} {code}\n" for name in listed))
        return str(path)

    def target(self, **changes: object) -> Target:
        values: dict[str, object] = {
            "name": "web1",
            "address": "127.0.0.1",
            "user": getpass.getuser(),
            "application": application(),
            "port": self.port,
            "identity_file": str(self.directory / "user"),
        }
        return Target(**(values | changes))  # type: ignore[arg-type]

    def host(self, known: str | None = None, **changes: object) -> FabricHost:
        """A client of it; `known` is a known_hosts file, '' for none."""
        path = self.known() if known is None else known
        return FabricHost(self.target(**changes), known_hosts=(path,) if path else (), connect_timeout_seconds=10)


def _read_on(stream: IO[bytes], log: list[str]) -> None:
    with stream:
        for line in stream:
            log.append(line.decode(errors="replace"))


def _config(directory: Path, port: int) -> str:
    return f"""\
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host
PidFile {directory}/pid
AuthorizedKeysFile {directory}/authorized_keys
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
PrintMotd no
MaxSessions 20
MaxStartups 50
"""
