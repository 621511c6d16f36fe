"""Follow the logs of many hosts in parallel: one stream for each source, restarted after a dropped connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Event

from rolling_upgrade.engine.host import Cancelled, StreamingHost
from rolling_upgrade.engine.model import Application
from rolling_upgrade.engine.parallel import run_streams
from rolling_upgrade.engine.untrusted import LINE_BYTES
from rolling_upgrade.errors import ConnectionDropped, HostUnreachable
from rolling_upgrade.features.logs import shell
from rolling_upgrade.features.logs.shell import LogLine, LogQuery

#: The pause before a reconnection.
PAUSE_SECONDS = 2.0
#: Limits of the memory for one source: bytes of its newest errors, and labels whose times are kept.
_MAX_ERRORS, _MAX_LABELS = 64 << 10, 16


@dataclass(frozen=True)
class LogSource:
    """One source of logs on one host."""

    host: StreamingHost
    application: Application
    name: str


def follow(
    sources: Sequence[LogSource], query: LogQuery, on_line: Callable[[LogLine], None], closed: Callable[[], bool]
) -> bool:
    """Pass each line to `on_line` until Ctrl-C, or until `closed` returns True.

    A note reports each dropped connection, which is opened again, and each host that is unreachable at the start.

    Returns:
        False when a source could not be followed from the start, or no source is left.
    """
    ended = Event()
    followers = [_Follower(source, query, on_line, ended) for source in sources]
    return all(run_streams([follower.run for follower in followers], ended, closed))


class _Follower:
    """The stream of one source, with the latest lines before a dropped connection."""

    def __init__(self, source: LogSource, query: LogQuery, on_line: Callable[[LogLine], None], ended: Event) -> None:
        self._source, self._query, self._on_line, self._ended = source, query, on_line, ended
        self._buffer, self._errors = bytearray(), bytearray()
        self._latest: dict[str, LogLine] = {}
        self._seen_until: dict[str, float] = {}
        self._connected = self._lost = False

    def run(self) -> bool:
        """Follow until all followers end. Returns False when the source cannot be followed."""
        while not self._ended.is_set():
            try:
                return self._run_streams()
            except Cancelled:
                return True
            except HostUnreachable as error:
                if not self._connected:
                    self._note(str(error))
                    return False
            except ConnectionDropped:
                self._drop()
            self._ended.wait(PAUSE_SECONDS)
        return True

    def _run_streams(self) -> bool:
        host, app, name = self._source.host, self._source.application, self._source.name
        script = shell.follow(app, name, self._query)
        status = host.stream(script, self._take, self._take_errors, cancelled=self._ended)
        errors = self._errors.decode(errors="replace").strip()
        self._note(f"ended with status {status}: {errors}" if errors else f"ended with status {status}")
        return False

    def _take(self, data: bytes) -> None:
        self._buffer += data
        *complete, rest = self._buffer.split(b"\n")
        if len(rest) > LINE_BYTES:
            # No known source writes such a line: cut it, and treat the rest as another line.
            complete, rest = [*complete, rest], bytearray()
        self._buffer = bytearray(rest)
        for line in complete:
            self._handle(shell.parse(self._source.host.name, line.decode(errors="replace")))

    def _take_errors(self, piece: bytes) -> None:
        self._errors += piece
        del self._errors[:-_MAX_ERRORS]

    def _handle(self, line: LogLine) -> None:
        if line.note:
            self._resume()
            if not line.text:
                self._begin()
                return
        elif line.at:
            if line.at <= self._seen_until.get(line.label, 0):
                return
            if line.label in self._latest or len(self._latest) < _MAX_LABELS:
                self._latest[line.label] = line
        self._on_line(line)

    def _begin(self) -> None:
        if self._lost:
            self._note("reconnected")
        self._lost, self._connected = False, True

    def _resume(self) -> None:
        """Skip lines that were shown already: those up to the latest line of each label."""
        self._seen_until = {label: line.at for label, line in self._latest.items()}

    def _drop(self) -> None:
        if not self._lost:
            self._note("the connection dropped; reconnecting")
        self._lost = True
        self._buffer.clear()
        self._errors.clear()
        self._resume()
        if self._latest:
            newest = max(self._latest.values(), key=lambda line: line.at)
            self._query = replace(self._query, since=shell.after(newest), lines=0)

    def _note(self, text: str) -> None:
        self._on_line(LogLine(self._source.host.name, self._source.name, "", text, note=True))
