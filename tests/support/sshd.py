"""A real OpenSSH server on loopback with temporary keys."""

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

#: The server's directory for privilege separation. Source: sshd(8).
_RUN = Path("/run/sshd")


def keygen(path: Path) -> Path:
    """Generate an ed25519 key without a passphrase."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Sshd:
    """A server that accepts one key, and the settings of its clients."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes]
    log: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, directory: Path, port: int = 0, *, answer: str = "") -> Sshd:
        """Start the server and wait until it listens; the program `answer` runs instead of every command.

        Raises AssertionError where the OpenSSH server is not installed.
        """
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
        """Read the log until the server listens. Raises AssertionError when it ends before."""
        assert self.process.stderr is not None
        startup_log = []
        for line in self.process.stderr:
            startup_log.append(line.decode())
            if b"Server listening" in line:
                # A full pipe would block the server, so a thread reads the rest of the log.
                threading.Thread(target=_read_on, args=(self.process.stderr, self.log), daemon=True).start()
                return
        raise AssertionError(f"sshd did not start: {''.join(startup_log)}")

    def stop(self) -> None:
        """Stop the server and its sessions."""
        self.drop_sessions()
        self.process.terminate()
        self.process.wait(timeout=20)

    def ended(self) -> list[str]:
        """Wait until the log reports the end of a connection, and return it."""
        deadline = time.monotonic() + 20
        while not any(line.startswith(("Connection closed", "Connection reset", "Disconnected")) for line in self.log):
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)
        return list(self.log)

    def sessions(self) -> list[int]:
        """Return the process ids of the sessions."""
        listed = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in listed.stdout.split()]

    def drop_sessions(self) -> None:
        """Kill the sessions, so that the connections of clients drop."""
        for pid in self.sessions():
            listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
            for child in (pid, *map(int, listed.stdout.split())):
                try:
                    name = Path(f"/proc/{child}/comm").read_text().strip()
                    if name == "sshd":
                        os.kill(child, signal.SIGKILL)
                except (ProcessLookupError, FileNotFoundError):
                    continue

    def known(self, *names: str, key: str = "host") -> str:
        """Write a known_hosts file with this server's key, or another key, under these names. Return its path."""
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
        """Return a client; `known` is a known_hosts file, or '' for none."""
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
