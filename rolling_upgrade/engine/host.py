"""The Host protocol: run a script on a machine and get its answer; and LocalHost, which is this machine."""

from __future__ import annotations

import math
import os
import selectors
import subprocess
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.shell import AS_LOGIN_USER, Script
from rolling_upgrade.errors import ConnectionDropped, HostUnreachable

#: Cancels all calls of a thread, beside each call's `cancelled`; code that works on many hosts at once sets it.
given_up: ContextVar[Event | None] = ContextVar("given_up", default=None)


@dataclass(frozen=True)
class Answer:
    """The output and exit status of a script."""

    status: int
    output: str
    errors: str = ""

    @property
    def ok(self) -> bool:
        """Whether the script exited with 0."""
        return self.status == 0

    @property
    def output_tail(self) -> str:
        """The last lines of both outputs, safe to show: at most thirty, each shortened."""
        return untrusted.tail("\n".join(part for part in (self.output.strip(), self.errors.strip()) if part))


class Host(Protocol):
    """One machine. Everything that happens on it goes through `run`."""

    @property
    def name(self) -> str:
        """The name of the host in the inventory."""

    def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
        """Run the script under `sh` and wait for its end, or until `cancelled` or the thread's `given_up` is set.

        Raises:
            HostUnreachable: the script was not started.
            ConnectionDropped: the outcome is unknown, or the answer exceeds the script's `answer_bytes`.
            Cancelled: the call was cancelled; the script may still be running.
        """

    def close(self) -> None:
        """Close the connection; a later `run` opens a new one."""


class StreamingHost(Host, Protocol):
    """A machine whose script output can be read while the script runs."""

    def stream(
        self,
        script: Script,
        on_output: Callable[[bytes], None],
        on_errors: Callable[[bytes], None],
        *,
        timeout_seconds: float = math.inf,
        cancelled: Event | None = None,
        on_open: Callable[[Callable[[bytes], None]], None] = lambda _: None,
        shell: str = AS_LOGIN_USER,
    ) -> int:
        """Run the script under `sh`, pass its output on piece by piece, and return its exit status.

        The script's descriptor 3 stays open until the workstation disconnects: a script that could outlive its reader
        waits for the end of that file, then ends its children. `on_open` receives a function that writes to that
        descriptor; `sh` may swallow what is written before the script has printed something. Raises what `run` raises;
        an exception of a callback ends the stream.
        """


class Cancelled(Exception):
    """The run was interrupted while a script was running; its outcome is unknown."""


def check_given_up(host: str) -> None:
    """Raise Cancelled if the work of this thread was cancelled."""
    flag = given_up.get()
    if flag is not None and flag.is_set():
        raise Cancelled(host)


def malformed_answer(host: str, problem: str) -> HostUnreachable:
    """The error for a host whose answer cannot be read."""
    return HostUnreachable(
        f"{host}: {problem}", next_step=f"log in to {host} and check what it prints; --hosts leaves it out"
    )


@dataclass
class Limits:
    """The limits of one call on a host: its deadline, its bytes, and its cancellation."""

    host: str
    timeout_seconds: float
    most_bytes: float
    cancelled: Event | None = None

    def __post_init__(self) -> None:
        self.begin()
        self._flags = [flag for flag in (self.cancelled, given_up.get()) if flag is not None]
        self._bytes = 0

    def begin(self) -> None:
        """Start the deadline."""
        self._deadline = time.monotonic() + self.timeout_seconds

    def check(self) -> None:
        """Raise Cancelled if the call was cancelled, ConnectionDropped if its deadline has passed."""
        if any(flag.is_set() for flag in self._flags):
            raise Cancelled(self.host)
        if time.monotonic() > self._deadline:
            raise ConnectionDropped(f"{self.host}: no answer within {self.timeout_seconds:g} s.")

    def count(self, chunk: bytes) -> None:
        """Count received bytes. Raises ConnectionDropped if they exceed the limit."""
        self._bytes += len(chunk)
        if self._bytes > self.most_bytes:
            raise ConnectionDropped(
                f"{self.host}: its answer has more than {untrusted.size(int(self.most_bytes))}; the rest was not read.",
                next_step=f"log in to {self.host} and check what it prints; --hosts leaves it out",
            )


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
                    remaining = _write_chunk(key.fd, remaining)
                    if not remaining:
                        selector.unregister(key.fileobj)
                        stdin.close()  # type: ignore[union-attr]
                elif chunk := os.read(key.fd, _CHUNK):
                    limits.count(chunk)
                    key.data.extend(chunk)
                else:
                    selector.unregister(key.fileobj)
    return output, errors


def _write_chunk(descriptor: int, data: memoryview) -> memoryview:
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
