"""A Host that is this machine: scripts run in a local `sh`."""

from __future__ import annotations

import os
import selectors
import subprocess
from threading import Event

from rolling_upgrade.engine.host import Answer, Limits
from rolling_upgrade.engine.shell import Script

_POLL_SECONDS = 0.1
_CHUNK = 65_536


class LocalHost:
    """Runs scripts under the `sh` of this machine."""

    def __init__(self, name: str = "localhost") -> None:
        self._name = name

    @property
    def name(self) -> str:
        """The name of this host in output."""
        return self._name

    def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
        """Run the script. Raises ConnectionDropped if it exceeds its limits, Cancelled if the call was cancelled."""
        program = f"main() {{\n{script.text}\n}}\nmain </dev/null\n".encode(errors="surrogateescape")
        limits = Limits(self._name, timeout_seconds, script.answer_bytes, cancelled)
        with subprocess.Popen(
            ["sh", "-s"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        ) as process:
            try:
                output, errors = _communicate(process, program, limits)
            except BaseException:
                process.kill()
                raise
            status = _status(process, limits)
            return Answer(status, output.decode(errors="replace"), errors.decode(errors="replace"))

    def close(self) -> None:
        """There is no connection to close."""


def _communicate(process: subprocess.Popen[bytes], program: bytes, limits: Limits) -> tuple[bytearray, bytearray]:
    """Write the program to the process and read both outputs to the end, within the limits."""
    stdin, output, errors = process.stdin, bytearray(), bytearray()
    remaining = memoryview(program)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, output)  # type: ignore[arg-type]
        selector.register(process.stderr, selectors.EVENT_READ, errors)  # type: ignore[arg-type]
        os.set_blocking(stdin.fileno(), False)  # type: ignore[union-attr]
        selector.register(stdin, selectors.EVENT_WRITE)  # type: ignore[arg-type]
        while selector.get_map():
            limits.check()
            for key, _ in selector.select(_POLL_SECONDS):
                if key.data is None:
                    remaining = _write(key.fd, remaining)
                    if not remaining:
                        selector.unregister(key.fileobj)
                        stdin.close()  # type: ignore[union-attr]
                elif chunk := os.read(key.fd, _CHUNK):
                    limits.count(chunk)
                    key.data.extend(chunk)
                else:
                    selector.unregister(key.fileobj)
    return output, errors


def _write(descriptor: int, data: memoryview) -> memoryview:
    """Write a chunk and return the remaining data; none if the process no longer reads."""
    try:
        return data[os.write(descriptor, data[:_CHUNK]) :]
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return data[:0]


def _status(process: subprocess.Popen[bytes], limits: Limits) -> int:
    while True:
        try:
            return process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            limits.check()
