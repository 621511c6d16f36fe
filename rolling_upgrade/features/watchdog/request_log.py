"""The request log of Nginx: read on from where the last look ended, through its rotations, and counted.

A line is `UPSTREAM/STATUS/SECONDS`, see templates/nginx/site.conf.j2; equal lines are frequent, so that they are
counted first and understood afterwards.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from fabfile.model import Application, Color

#: Upper ends of the histogram's classes, seconds; above the last there is one more.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: How much is read at one look, and at once.
BYTES_A_LOOK, _BLOCK = 32 * 1024 * 1024, 256 * 1024
#: Under how many names the rotated logs are found, see templates/host/requests.sh.
_ROTATED = 4
#: A worker of Nginx writes what it holds into the renamed log, before it opens the new one.
SETTLED_SECONDS = 3.0
_LINE = re.compile(r"([a-z0-9_-]+)/([1-5])[0-9][0-9]/([0-9]{1,9}\.[0-9]{1,6}|-)")


@dataclass(frozen=True)
class Position:
    """How far the log was read: the file by its inode (0 for none yet), and the bytes of it."""

    inode: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Series:
    """What was counted of one service and color: requests by the first digit of their status, then how long they took.

    `classes` are requests for each of BOUNDS and beyond, not cumulated.
    """

    service: str
    color: Color
    codes: tuple[int, ...] = (0, 0, 0, 0, 0)
    classes: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    seconds: float = 0.0


@dataclass(frozen=True)
class Counted:
    """Everything counted so far, and up to where."""

    position: Position | None = None
    series: tuple[Series, ...] = ()
    errors: int = 0


def read_on(counted: Counted, app: Application, log: Path, now: float) -> Counted:
    """Count what came since; `now` is Unix seconds. The very first time begins at the log's end. Raises OSError."""
    files = _files(log)
    if counted.position is None:
        return replace(counted, position=Position(files[-1][1], files[-1][2]) if files else Position())
    position, left, lines, lost = counted.position, BYTES_A_LOOK, Counter[bytes](), 0
    inodes = [inode for _, inode, _, _ in files]
    if position.inode and position.inode not in inodes:
        # It was rotated away before it was read to its end.
        position, lost = Position(), 1 if files else 0
    first = inodes.index(position.inode) if position.inode else 0
    for number, (path, inode, size, changed) in enumerate(files[first:], first):
        offset = position.offset if inode == position.inode and position.offset <= size else 0
        with path.open("rb") as file:
            file.seek(offset)
            offset, left = _count(file, offset, left, lines)
        position = Position(inode, offset)
        if left <= 0 or (number + 1 < len(files) and now - changed < SETTLED_SECONDS):
            break
    series, errors = add(counted.series, app, lines)
    return Counted(position, series, counted.errors + errors + lost)


def _files(log: Path) -> list[tuple[Path, int, int, float]]:
    """The logs that are there, oldest first: path, inode, size, last change."""
    found = []
    for path in (*(log.with_name(f"{log.name}.{number}") for number in range(_ROTATED, 0, -1)), log):
        with suppress(FileNotFoundError):
            seen = path.stat()
            found.append((path, seen.st_ino, seen.st_size, seen.st_mtime))
    return found


def _count(file: BinaryIO, offset: int, left: int, lines: Counter[bytes]) -> tuple[int, int]:
    """Count whole lines; how far the file is read and how much may be read still. A line without its end waits."""
    rest = b""
    while left > 0:
        block = file.read(min(_BLOCK, left))
        if not block:
            break
        left -= len(block)
        whole, _, rest = (rest + block).rpartition(b"\n")
        if whole:
            lines.update(whole.split(b"\n"))
            offset += len(whole) + 1
    if left <= 0 and len(rest) >= _BLOCK:
        # No line is as long: what was written there is none of Nginx.
        lines[b"?"] += 1
        offset += len(rest)
    return offset, left


def add(series: Iterable[Series], app: Application, lines: Mapping[bytes, int]) -> tuple[tuple[Series, ...], int]:
    """The series with these lines, each so many times, and how many lines could not be used.

    A service that the application has no longer is left out; each of its services is there, be it with nothing.
    """
    known = {(one.service, one.color): one for one in series}
    names = {
        f"{app.name.replace('-', '_')}_{service.name}_{color.value}": (service.name, color)
        for service in app.services
        for color in Color
    }
    rows = {key: _Row(known.get(key) or Series(*key)) for key in names.values()}
    errors = 0
    for line, times in lines.items():
        match = _LINE.fullmatch(line.decode("ascii", "replace"))
        if match is None:
            errors += times
        elif match[1] in names:
            rows[names[match[1]]].add(int(match[2]), match[3], times)
    return tuple(row.series() for row in rows.values()), errors


class _Row:
    """One series while lines are added."""

    def __init__(self, start: Series) -> None:
        self._start, self._codes, self._classes = start, list(start.codes), list(start.classes)
        self._seconds = start.seconds

    def add(self, code: int, seconds: str, times: int) -> None:
        """How long an upgraded connection (1xx) or a stream of events (-) lasted says nothing."""
        self._codes[code - 1] += times
        if code == 1 or seconds == "-":
            return
        took = float(seconds)
        self._classes[next((at for at, bound in enumerate(BOUNDS) if took <= bound), len(BOUNDS))] += times
        self._seconds += took * times

    def series(self) -> Series:
        """What it is now."""
        return replace(self._start, codes=tuple(self._codes), classes=tuple(self._classes), seconds=self._seconds)
