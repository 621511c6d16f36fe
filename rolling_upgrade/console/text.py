"""Text in columns and words: tables, durations, sizes. It writes nothing."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import datetime, tzinfo


def one_line(text: str) -> str:
    """The text on one line, every run of white space as one blank."""
    return " ".join(text.split())


def indent(text: str, by: str) -> list[str]:
    """The lines of a text, each behind `by`, without the empty ones at its end."""
    return [f"{by}{line}".rstrip() for line in text.rstrip().splitlines()]


def width(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def pad(text: str, columns: int) -> str:
    """The text filled up with blanks to that many columns."""
    return text + " " * (columns - width(text))


def table(rows: Sequence[Sequence[str]], *, gap: str = "  ") -> list[str]:
    """Rows of cells as aligned lines; the last cell of a row is not filled up."""
    columns = max((len(row) for row in rows), default=0)
    widths = [max((width(row[at]) for row in rows if at < len(row)), default=0) for at in range(columns)]
    return [gap.join(pad(cell, widths[at]) for at, cell in enumerate(row)).rstrip() for row in rows]


def progress(sent: int, total: int, seconds: float) -> str:
    """How far a transfer is: `12.4 of 65.1 MB, 19%, 8.2 MB/s`."""
    share = min(100, sent * 100 // total) if total else 100
    rate = f", {sent / seconds / 1e6:.1f} MB/s" if seconds > 0 else ""
    return f"{sent / 1e6:.1f} of {total / 1e6:.1f} MB, {share}%{rate}"


def bar(sent: int, total: int, columns: int = 20) -> str:
    """The same as a drawing."""
    full = min(columns, sent * columns // total) if total else columns
    return "█" * full + "░" * (columns - full)


def count(number: int, noun: str) -> str:
    """`1 host`, `2 hosts`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def short_digest(digest: str) -> str:
    """The first twelve digits of a digest, as Podman shows it."""
    return digest.removeprefix("sha256:")[:12]


def clock_time(at: float, zone: tzinfo | None = None) -> str:
    """The time of day of a moment in Unix seconds; the local zone unless another is given."""
    return datetime.fromtimestamp(at, zone).strftime("%H:%M:%S")


def duration(seconds: float) -> str:
    """A length of time in its two largest units: `2.1s`, `3m 12s`, `5h 07m`, `4d 03h`."""
    if seconds < 60:
        return f"{max(seconds, 0):.1f}s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600:02}h"


def fit(text: str, columns: int) -> str:
    """The text in exactly that many columns: filled up with blanks, or cut with an ellipsis."""
    if width(text) <= columns:
        return pad(text, columns)
    kept = ""
    for char in text:
        if width(kept + char) > columns - 1:
            break
        kept += char
    return pad(f"{kept}…" if columns > 0 else "", columns)


#: An answer is drawn as high as its share of the slowest one shown, but of this many milliseconds at least.
_FULL_HEIGHT_MS = 100
_HEIGHTS = "▁▂▃▄▅▆▇█"
#: What stands where there was no answer.
GAP = "×"


def sparkline(values: Sequence[int | None], columns: int) -> str:
    """The newest values as a drawing of at most that many columns: a bar for each, a cross for None."""
    shown = values[-columns:] if columns > 0 else ()
    top = max(_FULL_HEIGHT_MS, *(value or 0 for value in shown)) if shown else _FULL_HEIGHT_MS
    highest = len(_HEIGHTS) - 1
    return "".join(GAP if value is None else _HEIGHTS[min(highest, value * len(_HEIGHTS) // top)] for value in shown)
