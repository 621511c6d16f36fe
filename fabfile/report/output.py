"""The stream that a report goes to. It owns the promise that a reader who went away never ends a run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from threading import RLock
from typing import TextIO

from fabfile.model.masking import safe


class Output:
    """A text stream for many threads, on which every text is masked and no write fails.

    A closed pipe, a full disk or an encoding without our characters costs the report, never the run.
    """

    def __init__(self, stream: TextIO, secrets: Sequence[str] = ()) -> None:
        self._stream = stream
        self._secrets = tuple(secrets)
        self._lock = RLock()
        self._gone = False
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def safe(self, text: str) -> str:
        """The text masked and clean."""
        return safe(text, self._secrets)

    def show(self, lines: Sequence[str]) -> None:
        """Write the lines in one piece, each masked and clean."""
        if lines:
            self.write(self.safe("\n".join(lines)) + "\n")
            self.flush()

    def write(self, text: str) -> int:
        """Write text as it is, in one piece."""
        with self._lock:
            if not self._gone:
                try:
                    self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding, "replace"))
                except (OSError, ValueError):
                    self._leave()
        return len(text)

    def write_bytes(self, data: bytes) -> None:
        """Write bytes as they are, where the stream is one of bytes below, and hand them over."""
        with self._lock:
            if not self._gone:
                try:
                    self._stream.flush()
                    self._stream.buffer.write(data)
                    self._stream.flush()
                except (OSError, ValueError):
                    self._leave()

    def flush(self) -> None:
        """Hand over what was written."""
        with self._lock:
            if not self._gone:
                try:
                    self._stream.flush()
                except (OSError, ValueError):
                    self._leave()

    @property
    def gone(self) -> bool:
        """Whether the reader went away, so that nothing more is written."""
        return self._gone

    def isatty(self) -> bool:
        """Whether a person reads along on a terminal."""
        return is_terminal(self._stream)

    def fileno(self) -> int:
        """The file descriptor. Raises OSError when the stream has none."""
        return self._stream.fileno()

    def _leave(self) -> None:
        # What the stream still holds would fail once more when Python ends, and turn the exit code into 120.
        self._gone = True
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def tell(lines: Sequence[str], stream: TextIO, secrets: Sequence[str] = ()) -> None:
    """Write the lines of a report that has no other form, each masked and clean."""
    Output(stream, secrets).show(lines)


def is_terminal(stream: TextIO) -> bool:
    """Whether the stream is an open terminal."""
    with contextlib.suppress(OSError, ValueError):
        return stream.isatty()
    return False
