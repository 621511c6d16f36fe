"""Following the logs of many hosts at once: one stream a source, begun again after a drop. It prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Event

from fabfile.commands import logs
from fabfile.errors import ConnectionDropped, HostUnreachable
from fabfile.model import Application
from fabfile.model.logs import LogLine
from fabfile.remote.host import Cancelled, StreamingHost
from fabfile.remote.listening import listen

#: How long a host that dropped is left alone before it is tried again.
PAUSE_SECONDS = 2.0


@dataclass(frozen=True)
class Reading:
    """One source on one host."""

    host: StreamingHost
    application: Application
    source: str


def follow(
    readings: Sequence[Reading], wanted: logs.Wanted, on_line: Callable[[LogLine], None], gone: Callable[[], bool]
) -> bool:
    """Hand over each line as it comes until Ctrl-C, or until `gone` says that nobody reads any more.

    A host that drops is said and connected to again; one that cannot be reached to begin with is said and left out.
    False when nothing is left to follow, or something could not be followed from the start.
    """
    ended = Event()
    followers = [_Follower(one, wanted, on_line, ended) for one in readings]
    return all(listen([follower.run for follower in followers], ended, gone))


class _Follower:
    """The stream of one source: its lines, its drops, and what was had before a drop."""

    def __init__(self, reading: Reading, wanted: logs.Wanted, on_line: Callable[[LogLine], None], ended: Event) -> None:
        self._reading, self._wanted, self._on_line, self._ended = reading, wanted, on_line, ended
        self._buffer, self._errors = bytearray(), bytearray()
        self._latest: dict[str, LogLine] = {}
        self._had: dict[str, float] = {}
        self._connected = self._lost = False

    def run(self) -> bool:
        """Follow until the end of all following; False when there is nothing to follow here."""
        while not self._ended.is_set():
            try:
                return self._listen()
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

    def _listen(self) -> bool:
        host, app, source = self._reading.host, self._reading.application, self._reading.source
        status = host.stream(
            logs.follow(app, source, self._wanted), self._take, self._errors.extend, cancelled=self._ended
        )
        said = self._errors.decode(errors="replace").strip()
        self._note(f"ended with status {status}: {said}" if said else f"ended with status {status}")
        return False

    def _take(self, piece: bytes) -> None:
        self._buffer += piece
        *whole, rest = self._buffer.split(b"\n")
        self._buffer = bytearray(rest)
        for line in whole:
            self._hear(logs.parse(self._reading.host.name, line.decode(errors="replace")))

    def _hear(self, line: LogLine) -> None:
        if line.note:
            self._resume()
            if not line.text:
                self._begin()
                return
        elif line.at:
            if line.at <= self._had.get(line.label, 0):
                return
            self._latest[line.label] = line
        self._on_line(line)

    def _begin(self) -> None:
        if self._lost:
            self._note("connected again")
        self._lost, self._connected = False, True

    def _resume(self) -> None:
        """From here on lines may come that were had: those up to the latest of their label are left out."""
        self._had = {label: line.at for label, line in self._latest.items()}

    def _drop(self) -> None:
        if not self._lost:
            self._note("the connection dropped; connecting again")
        self._lost = True
        self._buffer.clear()
        self._errors.clear()
        self._resume()
        if self._latest:
            newest = max(self._latest.values(), key=lambda line: line.at)
            self._wanted = replace(self._wanted, since=logs.after(newest), lines=0)

    def _note(self, text: str) -> None:
        self._on_line(LogLine(self._reading.host.name, self._reading.source, "", text, note=True))
