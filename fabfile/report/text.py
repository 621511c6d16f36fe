"""What may be shown: secrets hidden, control characters gone, columns aligned. It writes nothing."""

from __future__ import annotations

import base64
import json
import re
import shlex
import unicodedata
from collections.abc import Sequence
from datetime import datetime, tzinfo
from functools import lru_cache
from urllib.parse import quote

#: What stands in the place of a secret; scripts show the same (`fabfile.commands.shell.MASK`).
MASK = "••••••"

#: Shorter values hide nothing worth hiding and would tear holes into ordinary words.
SHORTEST_SECRET = 4

_ESCAPE_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colors, cursor, erase
    r"|\x9b[0-?]*[ -/]*[@-~]"  # the same in one C1 byte
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS: titles, links
    r"|\x1b[ -/]*[0-~]"  # two-character sequences
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def clean(text: str) -> str:
    """The text without anything that a terminal would obey; line breaks and tabs stay."""
    text = text.replace("\r\n", "\n")
    text = _ESCAPE_SEQUENCE.sub("", text)
    text = _CONTROL.sub("", text.replace("\r", "\n"))
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def mask(text: str, secrets: Sequence[str]) -> str:
    """The text with every secret of four or more characters hidden, also where it is quoted or encoded."""
    pattern = _secrets_pattern(tuple(secrets))
    return pattern.sub(MASK, text) if pattern else text


def safe(text: str, secrets: Sequence[str] = ()) -> str:
    """The text as people may see it: masked and clean."""
    # Masked again at the end: what is taken out may have kept two halves of a secret apart.
    return mask(clean(mask(text, secrets)), secrets)


@lru_cache(maxsize=8)
def _secrets_pattern(secrets: tuple[str, ...]) -> re.Pattern[str] | None:
    forms = {form for secret in secrets if len(secret) >= SHORTEST_SECRET for form in _forms(secret)}
    if not forms:
        return None
    return re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))


def _forms(secret: str) -> set[str]:
    """The ways in which a secret can stand in a text: bare, quoted, encoded, line by line."""
    lines = [line for line in secret.splitlines() if len(line) >= 2 * SHORTEST_SECRET]
    encoded = base64.b64encode(secret.encode("utf-8", "surrogateescape")).decode()
    quoted = shlex.quote(secret)
    inside_quotes = quoted[1:-1] if quoted != secret else quoted
    escaped = [json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)]
    percent = quote(secret, safe="", errors="replace")
    return {secret, encoded, inside_quotes, percent, *escaped, *lines}


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
