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
        """The name it was given."""
        return self._name

    def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
        """Run the script. Raises ConnectionDropped when it takes too long or says too much, Cancelled when given up."""
        program = f"main() {{\n{script.text}\n}}\nmain </dev/null\n".encode(errors="surrogateescape")
        limits = Limits(self._name, timeout_seconds, script.answer_bytes, cancelled)
        with subprocess.Popen(
            ["sh", "-s"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        ) as process:
            try:
                output, errors = _converse(process, program, limits)
            except BaseException:
                process.kill()
                raise
            status = _status(process, limits)
            return Answer(status, output.decode(errors="replace"), errors.decode(errors="replace"))

    def close(self) -> None:
        """There is no connection to close."""


def _converse(process: subprocess.Popen[bytes], program: bytes, limits: Limits) -> tuple[bytearray, bytearray]:
    """Write the program to the process and read both of its outputs to their ends, within the limits."""
    keyboard, output, errors = process.stdin, bytearray(), bytearray()
    left = memoryview(program)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, output)  # type: ignore[arg-type]
        selector.register(process.stderr, selectors.EVENT_READ, errors)  # type: ignore[arg-type]
        os.set_blocking(keyboard.fileno(), False)  # type: ignore[union-attr]
        selector.register(keyboard, selectors.EVENT_WRITE)  # type: ignore[arg-type]
        while selector.get_map():
            limits.check()
            for key, _ in selector.select(_POLL_SECONDS):
                if key.data is None:
                    left = _written(key.fd, left)
                    if not left:
                        selector.unregister(key.fileobj)
                        keyboard.close()  # type: ignore[union-attr]
                elif piece := os.read(key.fd, _CHUNK):
                    limits.count(piece)
                    key.data.extend(piece)
                else:
                    selector.unregister(key.fileobj)
    return output, errors


def _written(descriptor: int, left: memoryview) -> memoryview:
    """What is left to write; nothing for a process that does not read any more."""
    try:
        return left[os.write(descriptor, left[:_CHUNK]) :]
    except BlockingIOError:
        return left
    except BrokenPipeError:
        return left[:0]


def _status(process: subprocess.Popen[bytes], limits: Limits) -> int:
    while True:
        try:
            return process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            limits.check()
