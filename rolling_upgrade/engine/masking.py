"""Make text safe to show: mask secrets and remove control characters.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from functools import lru_cache
from urllib.parse import quote, quote_plus

#: The replacement for every secret.
MASK = "••••••"

#: Shorter secrets are not masked: masking them would alter ordinary words.
SHORTEST_SECRET = 4

#: Every secret that this process has read. See `remember`.
_remembered: frozenset[str] = frozenset()

_ESCAPE_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colors, cursor, erase
    r"|\x9b[0-?]*[ -/]*[@-~]"  # the same in one C1 byte
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS: titles, links
    r"|\x1b[ -/]*[0-~]"  # two-character sequences
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
#: The first and the last line of keys and certificates, which are not secret.
_PEM_BOUNDARY = re.compile(r"-----(?:BEGIN|END) [A-Z0-9 ]+-----")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def clean(text: str) -> str:
    """Remove everything that a terminal would interpret, except line breaks and tabs."""
    text = text.replace("\r\n", "\n")
    text = _ESCAPE_SEQUENCE.sub("", text)
    text = _CONTROL.sub("", text.replace("\r", "\n"))
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def mask(text: str, secrets: Sequence[str]) -> str:
    """Mask every secret of at least four characters, also in quoted or encoded form."""
    pattern = _secrets_pattern(tuple(secrets))
    return pattern.sub(MASK, text) if pattern else text


def safe(text: str, secrets: Sequence[str] = ()) -> str:
    """The text, masked and clean."""
    # Mask again at the end: a removed control character may have separated two halves of a secret.
    return mask(clean(mask(text, secrets)), secrets)


def remember(secrets: Iterable[str]) -> None:
    """Remember secrets for code that prints without a configuration, such as the handler of uncaught errors."""
    global _remembered
    _remembered = _remembered.union(secrets)


def remembered() -> tuple[str, ...]:
    """All secrets passed to `remember`."""
    return tuple(sorted(_remembered))


@lru_cache(maxsize=8)
def _secrets_pattern(secrets: tuple[str, ...]) -> re.Pattern[str] | None:
    forms = {form for secret in secrets if len(secret) >= SHORTEST_SECRET for form in _forms(secret)}
    if not forms:
        return None
    return re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))


def _forms(secret: str) -> set[str]:
    """The forms of a secret in a text: bare, quoted, encoded, line by line."""
    lines = [line.strip() for line in secret.splitlines()] if "\n" in secret else []
    lines = [line for line in lines if len(line) >= 2 * SHORTEST_SECRET and not _PEM_BOUNDARY.fullmatch(line)]
    quoted = shlex.quote(secret)
    inside_quotes = quoted[1:-1] if quoted != secret else quoted
    double_quoted = re.sub(r'([\\"$`])', r"\\\1", secret)
    escaped = [json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)]
    percent = [quote(secret, safe="", errors="replace"), quote_plus(secret, errors="replace")]
    percent += [re.sub("%..", lambda match: match[0].lower(), form) for form in percent]
    entities = [html.escape(secret), html.escape(secret, quote=False)]
    shell = [inside_quotes, double_quoted]
    return {secret, repr(secret)[1:-1], *shell, *escaped, *percent, *entities, *_in_base64(secret), *lines}


def _in_base64(secret: str) -> set[str]:
    """The base64 forms of a secret: alone, and its invariant part inside a longer encoded text."""
    data = secret.encode("utf-8", "surrogateescape")
    found = {base64.b64encode(data).decode()}
    for before in range(3):
        first, end = -(-before * 8 // 6), (before + len(data)) * 8 // 6
        inner = base64.b64encode(bytes(before) + data).decode()[first:end]
        if len(inner) >= 2 * SHORTEST_SECRET:
            found.add(inner)
    return found
