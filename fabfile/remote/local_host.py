"""A Host that is this machine: scripts run in a local `sh`. Standard library only, as the on-host service needs it."""

from __future__ import annotations

import subprocess
import time
from threading import Event

from fabfile.commands.shell import Script
from fabfile.errors import ConnectionDropped
from fabfile.remote.host import Answer, Cancelled

_POLL_SECONDS = 0.1


class LocalHost:
    """Runs scripts under the `sh` of this machine."""

    def __init__(self, name: str = "localhost") -> None:
        self._name = name

    @property
    def name(self) -> str:
        """The name it was given."""
        return self._name

    def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
        """Run the script; raises ConnectionDropped when it outlives its time, Cancelled when it was given up."""
        program: bytes | None = f"main() {{\n{script.text}\n}}\nmain </dev/null\n".encode(errors="surrogateescape")
        deadline = time.monotonic() + timeout_seconds
        with subprocess.Popen(
            ["sh", "-s"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            while True:
                try:
                    output, errors = process.communicate(program, timeout=_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    program = None  # communicate() goes on sending what it was given first, and refuses it twice
                    if cancelled is not None and cancelled.is_set():
                        process.kill()
                        raise Cancelled(self._name) from None
                    if time.monotonic() > deadline:
                        process.kill()
                        raise ConnectionDropped(f"{self._name}: no answer within {timeout_seconds:g} s.") from None
                else:
                    return Answer(process.returncode, output.decode(errors="replace"), errors.decode(errors="replace"))

    def close(self) -> None:
        """Nothing to let go of."""
