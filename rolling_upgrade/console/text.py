"""Format text for output: tables, durations, times, bars."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime

from rolling_upgrade.engine.model import Diagnosis, Level


def one_line(text: str) -> str:
    """Return the text on one line, with every run of white space as one space."""
    return " ".join(text.split())


def indent(text: str, by: str) -> list[str]:
    """Return the lines of a text, each with a prefix, without trailing empty lines."""
    return [f"{by}{line}".rstrip() for line in text.rstrip().splitlines()]


def width(text: str) -> int:
    """Return the number of terminal columns that the text takes."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def pad(text: str, columns: int) -> str:
    """Return the text padded with spaces to a number of columns."""
    return text + " " * (columns - width(text))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as aligned lines without trailing spaces.

    The width depends only on the cells. A Rich table would wrap or cut cells at the width of the terminal, and Rich
    takes 60 ms to import.
    """
    columns = max((len(row) for row in rows), default=0)
    widths = [max((width(row[at]) for row in rows if at < len(row)), default=0) for at in range(columns)]
    return ["  ".join(pad(cell, widths[at]) for at, cell in enumerate(row)).rstrip() for row in rows]


def unreachable_lines(errors: Mapping[str, str]) -> list[str]:
    """Return a line with the error of each unreachable host."""
    return [f"{host}  UNREACHABLE: {one_line(error).removeprefix(f'{host}: ')}" for host, error in errors.items()]


def diagnosis_lines(rows: Sequence[Diagnosis], labels: Mapping[Level, str]) -> list[str]:
    """Return the findings by host or file, each with the label of its level and with its remedy."""
    lines: list[str] = []
    for host in dict.fromkeys(row.host for row in rows):
        lines.append(host)
        for row in (row for row in rows if row.host == host):
            lines.append(f"  {labels[row.level]:<8} {one_line(row.what)}")
            lines += [f"           {one_line(row.remedy)}"] if row.remedy else []
    return lines


def progress(sent: int, total: int, seconds: float) -> str:
    """Return the progress of a transfer: `12.4 of 65.1 MB, 19%, 8.2 MB/s`, or `12.4 MB, 8.2 MB/s` without a total."""
    share = f" of {total / 1e6:.1f} MB, {min(100, sent * 100 // total)}%" if total else " MB"
    rate = f", {sent / seconds / 1e6:.1f} MB/s" if seconds > 0 else ""
    return f"{sent / 1e6:.1f}{share}{rate}"


def bar(sent: int, total: int) -> str:
    """Return the progress of a transfer of known size as a bar of 20 columns."""
    full = min(20, sent * 20 // total)
    return "█" * full + "░" * (20 - full)


def count(number: int, noun: str) -> str:
    """Return a number with its noun: `1 host`, `2 hosts`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def clock_time(at: float) -> str:
    """Return the local time of day of a moment in Unix seconds."""
    return datetime.fromtimestamp(at).strftime("%H:%M:%S")


def utc_time(time: str) -> str:
    """Return a time of a history for people: `2026-11-23 04:41:38 UTC`."""
    return time.replace("T", " ").replace("+00:00", " UTC")


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: `2.1s`, `3m 12s`, `5h 07m`, `4d 03h`."""
    if seconds < 60:
        return f"{max(seconds, 0):.1f}s"
    total = int(seconds)
    if total < 3600:
        return f"{total // 60}m {total % 60:02}s"
    if total < 86_400:
        return f"{total // 3600}h {total % 3600 // 60:02}m"
    return f"{total // 86_400}d {total % 86_400 // 3600:02}h"


def fit(text: str, columns: int) -> str:
    """Fit the text to a number of columns: pad it with spaces, or cut it with an ellipsis."""
    if width(text) <= columns:
        return pad(text, columns)
    cut = ""
    for char in text:
        if width(cut + char) > columns - 1:
            break
        cut += char
    return pad(f"{cut}…" if columns > 0 else "", columns)


#: The minimum value of a full bar: bars are relative to the highest value shown, or to this many milliseconds.
_FULL_HEIGHT_MS = 100
_HEIGHTS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[int | None], columns: int) -> str:
    """Draw the newest values in a number of columns: a bar per value, a cross for None."""
    shown = values[-columns:] if columns > 0 else ()
    top = max(_FULL_HEIGHT_MS, *(value or 0 for value in shown)) if shown else _FULL_HEIGHT_MS
    highest = len(_HEIGHTS) - 1
    return "".join("×" if value is None else _HEIGHTS[min(highest, value * len(_HEIGHTS) // top)] for value in shown)
