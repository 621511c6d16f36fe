"""Write the output of commands on hosts: complete lines, masked, prefixed with the host when there are several."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import TextIO

from rolling_upgrade.console.output import Output
from rolling_upgrade.console.text import pad, width
from rolling_upgrade.engine.masking import mask
from rolling_upgrade.engine.untrusted import LINE_BYTES

#: The maximum of bytes per character of a secret, in any encoding that masking recognises.
_BYTES_PER_CHARACTER = 24


class HostOutput:
    """Writes the output of many hosts to one stream.

    Control characters are removed on a terminal and for several hosts. The output of one host into a pipe or a file is
    unchanged except for secrets.
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
        """Whether a write failed; later output is discarded."""
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
        """Write the last line of a host's output if it has no line end."""
        with self._lock:
            partial, self._partial[host] = self._partial[host], bytearray()
            if partial:
                self._write(host, bytes(partial))

    def _write_part(self, host: str, data: bytes) -> bytes:
        """Write the start of a long line; return its end, which may contain the start of a secret."""
        masked = mask(data.decode("utf-8", "surrogateescape"), self._secrets).encode("utf-8", "surrogateescape")
        tail = min(LINE_BYTES // 2, _BYTES_PER_CHARACTER * max(map(len, self._secrets), default=1))
        self._write(host, masked[:-tail])
        return masked[-tail:]

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
