"""Counts new requests in Nginx's request log since the previous read, across rotations.

A line is `UPSTREAM/STATUS/SECONDS`, see templates/nginx/site.conf.j2. Equal lines are frequent: they are counted as
bytes first, and each distinct line is parsed once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from rolling_upgrade.engine.model import Application, Color

#: Upper bounds of the histogram's buckets, seconds; one more bucket is above the last.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: The maximum number of bytes per observation, and per read.
BYTES_PER_OBSERVATION, _BLOCK = 32 * 1024 * 1024, 256 * 1024
#: The number of rotated logs, see templates/host/requests.sh.
_ROTATED = 4
#: After a rotation an Nginx worker flushes its buffer into the renamed log before it opens the new one.
SETTLED_SECONDS = 3.0
_LINE = re.compile(r"([a-z0-9_-]+)/([1-5])[0-9][0-9]/([0-9]{1,9}\.[0-9]{1,6}|-)")


@dataclass(frozen=True)
class Position:
    """Where the reading ended: the file's inode (0 for none yet), and the offset in bytes."""

    inode: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Series:
    """The requests of one service and color.

    `codes` counts them by the first digit of their status, `classes` by duration: one count for each of BOUNDS and one
    above, not cumulative. `seconds` is the sum of the durations.
    """

    service: str
    color: Color
    codes: tuple[int, ...] = (0, 0, 0, 0, 0)
    classes: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    seconds: float = 0.0


@dataclass(frozen=True)
class RequestCounts:
    """The requests counted so far, and where the reading ended."""

    position: Position | None = None
    series: tuple[Series, ...] = ()
    errors: int = 0


def read_new(counts: RequestCounts, app: Application, log: Path, now: float) -> RequestCounts:
    """Count the requests since the previous reading; the first reading starts at the log's end. Raises OSError."""
    files = _files(log)
    if counts.position is None:
        return replace(counts, position=Position(files[-1][1], files[-1][2]) if files else Position())
    position, left, lines, lost = counts.position, BYTES_PER_OBSERVATION, Counter[bytes](), 0
    inodes = [inode for _, inode, _, _ in files]
    if position.inode and position.inode not in inodes:
        # The file was rotated away before its end was read.
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
    series, errors = add(counts.series, app, lines)
    return RequestCounts(position, series, counts.errors + errors + lost)


def _files(log: Path) -> list[tuple[Path, int, int, float]]:
    """The existing logs, oldest first: path, inode, size, last change."""
    files = []
    for path in (*(log.with_name(f"{log.name}.{number}") for number in range(_ROTATED, 0, -1)), log):
        with suppress(FileNotFoundError):
            status = path.stat()
            files.append((path, status.st_ino, status.st_size, status.st_mtime))
    return files


def _count(file: BinaryIO, offset: int, left: int, lines: Counter[bytes]) -> tuple[int, int]:
    """Count complete lines; return the new offset, and how many bytes may still be read."""
    rest = b""
    while left > 0:
        block = file.read(min(_BLOCK, left))
        if not block:
            break
        left -= len(block)
        complete, _, rest = (rest + block).rpartition(b"\n")
        if complete:
            lines.update(complete.split(b"\n"))
            offset += len(complete) + 1
    if left <= 0 and len(rest) >= _BLOCK:
        # Nginx writes no line of this length.
        lines[b"?"] += 1
        offset += len(rest)
    return offset, left


def add(series: Iterable[Series], app: Application, lines: Mapping[bytes, int]) -> tuple[tuple[Series, ...], int]:
    """Add lines with their counts to the series; return one series per service and color, and the malformed lines.

    Series of services that the application no longer has are dropped.
    """
    known = {(counted.service, counted.color): counted for counted in series}
    names = {
        f"{app.name.replace('-', '_')}_{service.name}_{color.value}": (service.name, color)
        for service in app.http_services
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
    """A series that lines are added to."""

    def __init__(self, start: Series) -> None:
        self._start, self._codes, self._classes = start, list(start.codes), list(start.classes)
        self._seconds = start.seconds

    def add(self, code: int, seconds: str, times: int) -> None:
        """Add a line; the duration of an upgraded connection (1xx) or an event stream (-) does not count."""
        self._codes[code - 1] += times
        if code == 1 or seconds == "-":
            return
        duration = float(seconds)
        self._classes[next((at for at, bound in enumerate(BOUNDS) if duration <= bound), len(BOUNDS))] += times
        self._seconds += duration * times

    def series(self) -> Series:
        """The series with the added lines."""
        return replace(self._start, codes=tuple(self._codes), classes=tuple(self._classes), seconds=self._seconds)
