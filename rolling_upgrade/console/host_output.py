"""The output of commands on hosts: whole lines, masked, prefixed with the host when there are several."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import TextIO

from rolling_upgrade.console.output import Output
from rolling_upgrade.console.text import pad, width
from rolling_upgrade.engine.masking import mask
from rolling_upgrade.engine.untrusted import LINE_BYTES

#: The most bytes that one character of a secret takes in any form that masking hides.
_LONGEST_FORM = 24


class HostOutput:
    """Output of many hosts on one stream of the workstation.

    On a terminal, and for several hosts, control characters are removed. One host's output into a pipe or a file
    stays the same byte for byte, except for secrets.
    """

    def __init__(self, stream: TextIO, *, hosts: Sequence[str], secrets: Sequence[str] = ()) -> None:
        self._output, self._secrets = Output(stream, secrets), tuple(secrets)
        self._width = max(map(width, hosts), default=0)
        self._several = len(hosts) > 1
        self._raw = not self._several and not self._output.isatty() and hasattr(stream, "buffer")
        self._partial: dict[str, bytearray] = {host: bytearray() for host in hosts}
        self._lock = Lock()

    @property
    def closed(self) -> bool:
        """Whether a write failed, after which nothing more is written."""
        return self._output.closed

    def feed(self, host: str, data: bytes) -> None:
        """Add output of a host and write its complete lines."""
        with self._lock:
            partial = self._partial[host]
            partial += data
            complete, line_end, tail = bytes(partial).rpartition(b"\n")
            if line_end:
                self._partial[host] = bytearray(tail)
                self._write(host, complete + b"\n")
            if len(tail) > LINE_BYTES:
                self._partial[host] = bytearray(self._write_part(host, tail))

    def end(self, host: str) -> None:
        """Write the rest of a host's output, a last line without a line end."""
        with self._lock:
            partial, self._partial[host] = self._partial[host], bytearray()
            if partial:
                self._write(host, bytes(partial))

    def _write_part(self, host: str, data: bytes) -> bytes:
        """Write the beginning of a long line; return its end, which may hold the beginning of a secret."""
        masked = mask(data.decode("utf-8", "surrogateescape"), self._secrets).encode("utf-8", "surrogateescape")
        kept = min(LINE_BYTES // 2, _LONGEST_FORM * max(map(len, self._secrets), default=1))
        self._write(host, masked[:-kept])
        return masked[-kept:]

    def _write(self, host: str, data: bytes) -> None:
        if self._raw:
            text = mask(data.decode("utf-8", "surrogateescape"), self._secrets)
            self._output.write_bytes(text.encode("utf-8", "surrogateescape"))
            return
        text = self._output.safe(data.decode("utf-8", "replace"))
        if self._several:
            head = pad(host, self._width)
            text = "".join(f"{head} | {line}\n" for line in text.removesuffix("\n").split("\n"))
        self._output.write(text)
        self._output.flush()
