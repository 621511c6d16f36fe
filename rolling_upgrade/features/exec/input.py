"""Passes the standard input of this process on to the commands on many hosts.

A script gets it on its descriptor 3 as chunks: a line with their number of bytes, then the bytes. A chunk of 0 bytes is
the end of the input, so that the script can tell it from a lost connection.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from queue import Empty, Full, Queue
from threading import Event, Thread

from rolling_upgrade.engine.host import Cancelled
from rolling_upgrade.errors import RollingError

#: The line that a script prints first: from now on it reads its descriptor 3.
READY = b"ready\n"
_CHUNK = 65_536
#: How many chunks a host may be behind the fastest one before the input waits for it.
_MOST_WAITING = 8
_POLL_SECONDS = 0.2


def has_input(descriptor: int = 0) -> bool:
    """Return whether a descriptor can have input for a command: it is open, and neither a terminal nor /dev/null."""
    try:
        return not stat.S_ISCHR(os.fstat(descriptor).st_mode)
    except OSError:
        return False


class Receiver:
    """The input of the command on one host. Its methods are callbacks of the stream."""

    def __init__(self, on_output: Callable[[bytes], None]) -> None:
        self._on_output = on_output
        self._chunks: Queue[bytes] = Queue(_MOST_WAITING)
        self._start = bytearray()
        self._is_ready, self._has_ended = Event(), Event()

    def opened(self, send: Callable[[bytes], None]) -> None:
        """Send the chunks in a thread, once the script reads them."""
        Thread(target=self._send_all, args=(send,), daemon=True).start()

    def received(self, data: bytes) -> None:
        """Pass on the output after the first line of the script."""
        if self._is_ready.is_set():
            self._on_output(data)
            return
        self._start += data
        if len(self._start) < len(READY):
            return
        self._is_ready.set()
        if rest := bytes(self._start).removeprefix(READY):
            self._on_output(rest)

    def end(self) -> None:
        """Send nothing more: the command has ended."""
        self._has_ended.set()

    def put(self, chunk: bytes) -> None:
        """Add a chunk, empty at the end of the input; wait while the command is too slow for it."""
        while not self._has_ended.is_set():
            try:
                self._chunks.put(chunk, timeout=_POLL_SECONDS)
            except Full:
                continue
            return

    def _send_all(self, send: Callable[[bytes], None]) -> None:
        while not self._is_ready.wait(_POLL_SECONDS):
            if self._has_ended.is_set():
                return
        while not self._has_ended.is_set():
            try:
                chunk = self._chunks.get(timeout=_POLL_SECONDS)
            except Empty:
                continue
            try:
                send(b"%d\n%b" % (len(chunk), chunk))
            except (RollingError, Cancelled, OSError, EOFError):
                # The command has ended, or the connection: the stream knows why.
                return
            if not chunk:
                return


def read(descriptor: int, receivers: list[Receiver]) -> None:
    """Read the input in a thread, and give each chunk to all receivers."""

    def read_all() -> None:
        chunk = b"-"
        while chunk:
            try:
                chunk = os.read(descriptor, _CHUNK)
            except OSError:
                chunk = b""
            for receiver in receivers:
                receiver.put(chunk)

    Thread(target=read_all, daemon=True).start()
