"""Hosts without SSH for tests of workflows: a function answers each script, or a local `sh` runs it in a directory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest

from rolling_upgrade.engine import image_push
from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.model import Target
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import ConnectionDropped, HostUnreachable
from rolling_upgrade.ssh import fleet
from tests.support import host_engine
from tests.support.shell import Programs

#: The lock file of another operator's run; its lease outlasts the test.
HELD = "token=other\nowner=ben\nworkstation=desk\npid=7\nreason=deploy v3\nacquired_at=1000\nexpires_at=4000000000\n"
#: Answers a script: called with the name of the host and the text of the script.
Respond = Callable[[str, str], Answer]


class LocalHost:
    """A host that passes each script to a function."""

    def __init__(self, name: str, respond: Respond) -> None:
        self.name, self._respond = name, respond
        self._is_lost = False

    def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
        return self._respond(self.name, script.text)

    def stream(
        self,
        script: Script,
        on_output: Callable[[bytes], None],
        on_errors: Callable[[bytes], None],
        *,
        on_open: Callable[[host_engine.Send], None] = lambda _: None,
        **_: object,
    ) -> int:
        if host_engine.is_run(script.text):
            if self._is_lost:
                raise HostUnreachable(f"{self.name}: no route to host.")
            try:
                return host_engine.execute(script.text, lambda text: self._respond(self.name, text), on_output, on_open)
            except ConnectionDropped:
                self._is_lost = True
                raise
        answer = self._respond(self.name, script.text)
        on_output(answer.output.encode(errors="surrogateescape"))
        on_errors(answer.errors.encode(errors="surrogateescape"))
        return answer.status

    @contextmanager
    def offer(self, offered: object) -> Iterator[Script]:
        """Serve no images; the script of a push would find this workstation on port 5000."""
        yield image_push.prologue(5000, "password")

    def connect(self) -> None:
        """Hold no connection."""

    def close(self) -> None:
        """Hold no connection."""


def answer_with(monkeypatch: pytest.MonkeyPatch, respond: Respond) -> None:
    """Replace the SSH connections of every fleet by a function."""

    def connect(target: Target, **_: object) -> LocalHost:
        return LocalHost(target.name, respond)

    monkeypatch.setattr(fleet, "FabricHost", connect)


class Machines:
    """Runs scripts of hosts in a local `sh`, each host with its own root directory and the test's programs on PATH."""

    def __init__(self, root: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root, self._programs = root, programs
        self.unreachable: set[str] = set()
        answer_with(monkeypatch, self._run)

    def root(self, host: str) -> Path:
        """Return the root directory of the host."""
        path = self._root / host
        for name in ("home", "var/lib", "srv", "etc/nginx/conf.d"):
            (path / name).mkdir(parents=True, exist_ok=True)
        return path

    def home(self, host: str) -> Path:
        """Return the directory of the application on the host."""
        return self.root(host) / "var/lib/memoryark"

    def prepare(self, host: str) -> Path:
        """Create what setup and a first deploy leave: the application's directories and its site. Return its home."""
        root, home = self.root(host), self.home(host)
        for name in ("live", "lock", "config", "journal"):
            (home / name).mkdir(parents=True)
        site = "if (-f /var/lib/memoryark/live/maintenance.html) { return 503; }\n"
        (root / "etc/nginx/conf.d/memoryark.conf").write_text(site)
        return home

    def _run(self, host: str, text: str) -> Answer:
        if host in self.unreachable:
            raise HostUnreachable(f"{host}: cannot reach 192.0.2.1.", next_step="check the network")
        root = self.root(host)
        for directory in ("/var/lib/", "/srv/", "/etc/nginx/"):
            text = text.replace(directory, f"{root}{directory}")
        text = text.replace("PATH=/usr/local/sbin:", f"PATH={self._programs.directory}:/usr/local/sbin:")
        environment = {"PATH": self._programs.path, "HOME": str(root / "home"), "HOST": host, "LC_ALL": "C"}
        # As over SSH, descriptor 3 stays open until the script ends.
        held, holder = os.pipe()
        program = f"main() {{\n{text}\n}}\nmain 3</dev/fd/{held} </dev/null; exit\n".encode()
        try:
            done = subprocess.run(
                ["sh", "-s"],
                input=program,
                capture_output=True,
                env=environment,
                pass_fds=(held,),
                timeout=60,
                check=False,
            )
        finally:
            os.close(held)
            os.close(holder)
        output = done.stdout.decode(errors="surrogateescape")
        return Answer(done.returncode, output, done.stderr.decode(errors="replace"))
