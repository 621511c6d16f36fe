"""Collecting what is wrong while reading: mistakes, warnings, and how a value is shown. It reads no file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from fabfile.errors import Mistake

_SECRET_NAME = re.compile(
    r"SECRET|PASSWORD|PASSWD|PASSPHRASE|(?:^|_)PASS(?:_|$)|TOKEN|WEBHOOK|CREDENTIAL|KEYS?(?:_|$)|(?:^|_)DSN$|^DATABASE_URL$"
    r"|PWD|(?:^|_)(?:AUTH|BEARER)(?:_|$)",
    re.IGNORECASE,
)
#: Keys whose values are no secrets though their names sound so: paths, and which messages a channel takes.
_HARMLESS_NAME = re.compile(r"_PATH$|_FILE$|_DIR$|^NOTIFY_", re.IGNORECASE)
_CREDENTIALS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s:@]*:(?P<password>[^/?#\s]+)@")
_SHORTEST_SECRET = 4
_LONGEST_SHOWN = 80


class Findings:
    """The mistakes and warnings found so far, each kept once, in the order of finding."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._mistakes: dict[Mistake, None] = {}
        self._warnings: dict[str, None] = {}

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        """Every mistake."""
        return tuple(self._mistakes)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Every warning, one sentence or two each."""
        return tuple(self._warnings)

    def name(self, path: Path) -> str:
        """A file as people read it: relative to the project where it lies inside."""
        return str(path.relative_to(self._root)) if path.is_relative_to(self._root) else str(path)

    def add(self, file: str, path: str, *, found: str, expected: str) -> None:
        """Keep a mistake."""
        self._mistakes[Mistake(file, path, found, expected)] = None

    def warn(self, text: str) -> None:
        """Keep a warning."""
        self._warnings[text] = None


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that looks most like this one ('' when none does)."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[close[0]] if close else ""


def is_secret(key: str) -> bool:
    """Whether the values of an env key must never be shown, judged by its name."""
    return bool(_SECRET_NAME.search(key)) and not _HARMLESS_NAME.search(key)


def conceals(key: str, value: str) -> bool:
    """Whether a value must not be shown: a secret by the name of its key, or an address with a password in it."""
    return is_secret(key) or bool(_CREDENTIALS.search(value))


def secret_keys(values: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The names of the keys that hold a secret."""
    return tuple(key for key, value in values if value and conceals(key, value))


def shown(value: object, key: str = "") -> str:
    """A value as a message may quote it: escaped, shortened, and hidden where it is or holds a secret."""
    text = value if isinstance(value, str) else str(value)
    if conceals(key, text):
        return f"a hidden value of {len(text)} characters"
    quoted = repr(text)
    return quoted if len(quoted) <= _LONGEST_SHOWN else f"{quoted[: _LONGEST_SHOWN - 1]}…"


def secret_values(values: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The strings that must never be printed, longest first, so that masking leaves no tail of one behind."""
    found: set[str] = set()
    for key, value in values:
        credentials = _CREDENTIALS.search(value)
        if is_secret(key) or credentials:
            found.add(value)
        if credentials:
            found |= {credentials["password"], unquote(credentials["password"])}
    plain = {"true", "false"}
    long_enough = (value for value in found if len(value) >= _SHORTEST_SECRET and value.casefold() not in plain)
    return tuple(sorted(long_enough, key=lambda value: (-len(value), value)))
