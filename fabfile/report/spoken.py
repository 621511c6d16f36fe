"""What commands on hosts say, as they say it: each line whole, masked, and behind its host where there are several."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import TextIO

from fabfile.model.masking import mask
from fabfile.report.output import Output
from fabfile.report.text import pad, width


class Spoken:
    """One stream of the workstation, fed by many hosts.

    For several hosts, and on a terminal, lines are text without control characters. One host's output that goes into a
    pipe or a file stays what it is, byte for byte but for secrets.
    """

    def __init__(self, stream: TextIO, *, hosts: Sequence[str], secrets: Sequence[str] = ()) -> None:
        self._output, self._secrets = Output(stream, secrets), tuple(secrets)
        self._width = max(map(width, hosts), default=0)
        self._several = len(hosts) > 1
        self._raw = not self._several and not self._output.isatty() and hasattr(stream, "buffer")
        self._rests: dict[str, bytearray] = {host: bytearray() for host in hosts}
        self._lock = Lock()

    @property
    def gone(self) -> bool:
        """Whether nobody reads any more."""
        return self._output.gone

    def hear(self, host: str, piece: bytes) -> None:
        """Take in a piece and write the lines that are whole."""
        with self._lock:
            rest = self._rests[host]
            rest += piece
            whole, found, tail = bytes(rest).rpartition(b"\n")
            if found:
                self._rests[host] = bytearray(tail)
                self._write(host, whole + b"\n")

    def end(self, host: str) -> None:
        """Write what is left of a last line without an end."""
        with self._lock:
            rest, self._rests[host] = self._rests[host], bytearray()
            if rest:
                self._write(host, bytes(rest))

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
