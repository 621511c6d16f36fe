"""Write text and JSON to a stream, safe to show; write errors stop the output and never the run."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from threading import Lock, RLock
from typing import Any, TextIO, TypeVar

from rolling_upgrade.console.text import pad, width
from rolling_upgrade.engine.masking import mask, safe
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.engine.untrusted import LINE_BYTES
from rolling_upgrade.errors import ConfigIssue

T = TypeVar("T")
#: The maximum number of bytes per character of a secret, in any encoding that masking recognises.
_BYTES_PER_CHARACTER = 24


class Output:
    """A text stream for many threads that masks secrets.

    After a write error, such as a closed pipe or a full disk, later output is discarded. Characters that the encoding
    lacks are replaced.
    """

    def __init__(self, stream: TextIO, secrets: Sequence[str] = ()) -> None:
        self._stream = stream
        self._secrets = tuple(secrets)
        self._lock = RLock()
        self._closed = False
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def safe(self, text: str) -> str:
        """Return the text without secrets and control characters."""
        return safe(text, self._secrets)

    def masked(self, value: T) -> T:
        """Return a copy of a value in which every text, also in containers and dataclasses, is safe to show."""
        masked: Any = value
        if isinstance(value, str) and not isinstance(value, Enum):
            masked = self.safe(value)
        elif isinstance(value, Mapping):
            masked = {self.masked(key): self.masked(item) for key, item in value.items()}
        elif isinstance(value, (list, tuple)):
            masked = type(value)(map(self.masked, value))
        elif is_dataclass(value) and not isinstance(value, type):
            masked = replace(value, **{field.name: self.masked(getattr(value, field.name)) for field in fields(value)})
        return masked  # type: ignore[no-any-return]

    def show(self, lines: Sequence[str]) -> None:
        """Write lines, each safe to show, without interleaving other output."""
        if lines:
            self.write(self.safe("\n".join(lines)) + "\n")
            self.flush()

    def write_json(self, value: object, *, indent: int | None = None) -> None:
        """Write a value, and the dataclasses in it, as one JSON document that ends with a line end."""
        # Mask before encoding: JSON escapes quotes in a secret. json.dumps writes ASCII, which fits every stream.
        self.write(json.dumps(self.masked(to_plain(value)), indent=indent) + "\n")
        self.flush()

    def write(self, text: str) -> int:
        """Write text unchanged, without interleaving other output."""
        self._attempt(
            lambda: self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding, "replace"))
        )
        return len(text)

    def write_bytes(self, data: bytes) -> None:
        """Write bytes unchanged and flush them; the stream needs a `buffer`."""

        def write() -> None:
            self._stream.flush()
            self._stream.buffer.write(data)
            self._stream.flush()

        self._attempt(write)

    def flush(self) -> None:
        """Flush the stream."""
        self._attempt(self._stream.flush)

    @property
    def closed(self) -> bool:
        """Whether a write failed; later output is discarded."""
        return self._closed

    def isatty(self) -> bool:
        """Whether the stream is an open terminal."""
        return is_terminal(self._stream)

    def fileno(self) -> int:
        """The file descriptor. Raises OSError when the stream has none."""
        return self._stream.fileno()

    def _attempt(self, write: Callable[[], object]) -> None:
        """Call `write`, one thread at a time, unless an earlier write failed."""
        with self._lock:
            if not self._closed:
                try:
                    write()
                except (OSError, ValueError):
                    self._close()

    def _close(self) -> None:
        # Python flushes the stream again at exit; a failure there would change the exit code to 120.
        self._closed = True
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


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


def print_lines(lines: Sequence[str], secrets: Sequence[str] = (), *, stream: TextIO | None = None) -> None:
    """Write lines to a stream, by default standard output, each masked and without control characters."""
    Output(stream or sys.stdout, secrets).show(lines)


def print_result(result: object, secrets: Sequence[str] = (), *, stream: TextIO | None = None) -> None:
    """Write a list as lines, any other value as one indented JSON document, with secrets masked."""
    if isinstance(result, list):
        print_lines(result, secrets, stream=stream)
    else:
        Output(stream or sys.stdout, secrets).write_json(result, indent=2)


def issues_json(issues: Sequence[ConfigIssue]) -> list[dict[str, Any]]:
    """Return errors of the configuration or the command line as JSON types: their fields, and the line to show."""
    return [{**to_plain(issue), "text": str(issue)} for issue in issues]


def is_terminal(stream: TextIO) -> bool:
    """Whether the stream is an open terminal."""
    with contextlib.suppress(OSError, ValueError):
        return stream.isatty()
    return False


def is_live(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the stream is a terminal that can redraw, outside CI."""
    in_ci = environ.get("CI", "").lower() not in ("", "0", "false")
    return is_terminal(stream) and not in_ci and environ.get("TERM") not in (None, "", "dumb")


def has_colors(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether text on the stream may be colored."""
    return is_live(stream, environ) and not environ.get("NO_COLOR")
