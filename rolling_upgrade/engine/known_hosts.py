"""Records of host keys in known_hosts files of OpenSSH: find, select and rewrite them.

Source: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rolling_upgrade.engine.local_file import read_small
from rolling_upgrade.engine.openssh import PublicKey
from rolling_upgrade.engine.untrusted import LARGE_ANSWER_BYTES

_REVOKED = "@revoked"
SSH_PORT = 22


@dataclass(frozen=True)
class Record:
    """A line that names a host: its file, line number, patterns and key."""

    file: str
    number: int
    patterns: str
    key: PublicKey
    revoked: bool = False

    @property
    def place(self) -> str:
        """The location of the line as messages show it."""
        return f"{self.file} line {self.number}"


def host_name(address: str, port: int) -> str:
    """Return the name of a host in known_hosts files."""
    return address if port == SSH_PORT else f"[{address}]:{port}"


def read_records(address: str, port: int, files: Iterable[str]) -> tuple[Record, ...]:
    """Return the lines of the files that name the host, in order, revoked keys included; skip missing files."""
    name = host_name(address.casefold(), port)
    return tuple(
        record
        for file in files
        for number, line in enumerate(_read(file).splitlines(), 1)
        if (record := _record(file, number, line)) is not None and _names(record.patterns, name)
    )


def _read(file: str) -> str:
    try:
        return read_small(Path(file), LARGE_ANSWER_BYTES).decode(errors="replace")
    except OSError:
        return ""


def usable(records: Sequence[Record]) -> tuple[Record, ...]:
    """Return the accepted records: the first of each key type, without revoked keys."""
    revoked = {record.key.blob for record in records if record.revoked}
    first: dict[str, Record] = {}
    for record in records:
        if record.key.blob not in revoked:
            first.setdefault(record.key.type, record)
    return tuple(first.values())


def rewritten(text: str, names: Iterable[str], keys: Iterable[tuple[str, PublicKey]]) -> str:
    """Return the text of a file with the records of the names removed and the new keys appended.

    A line that also names other hosts keeps those names; marked lines stay. Raises ValueError for a matching line with
    a wildcard, because it may also match other hosts.
    """
    wanted = {name.casefold() for name in names}
    rows = text.split("\n")
    rows = rows[:-1] if rows[-1] == "" else rows
    kept = [row for number, line in enumerate(rows, 1) if (row := _without(line, number, wanted)) is not None]
    return "".join(f"{row}\n" for row in [*kept, *(f"{name} {key.type} {key.blob}" for name, key in keys)])


def _without(line: str, number: int, names: set[str]) -> str | None:
    """Remove the names from a line; None if it names no other host. Raises ValueError for a wildcard."""
    record = _record("", number, line)
    if record is None or record.revoked or not any(_names(record.patterns, name) for name in names):
        return line
    patterns = record.patterns.split(",")
    if any(char in pattern for pattern in patterns for char in "*?!"):
        raise ValueError(f"line {number} matches it with a wildcard ({record.patterns})")
    left = [pattern for pattern in patterns if not any(_fits(pattern, name) for name in names)]
    return " ".join([",".join(left), *line.split()[1:]]) if left else None


def _record(file: str, number: int, line: str) -> Record | None:
    words = line.split()
    revoked = bool(words) and words[0] == _REVOKED
    if revoked:
        words = words[1:]
    if len(words) < 3 or words[0].startswith(("#", "@")):
        return None
    return Record(file, number, words[0], PublicKey(words[1], words[2]), revoked)


def _names(listed: str, name: str) -> bool:
    patterns = listed.split(",")
    if any(pattern.startswith("!") and fnmatch.fnmatchcase(name, pattern[1:].casefold()) for pattern in patterns):
        return False
    return any(_fits(pattern, name) for pattern in patterns)


def _fits(pattern: str, name: str) -> bool:
    if not pattern.startswith("|1|"):
        escaped = pattern.casefold().replace("[", "[[]")
        return fnmatch.fnmatchcase(name, escaped)
    salt, _, wanted = pattern.removeprefix("|1|").partition("|")
    try:
        digest = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest()
        return hmac.compare_digest(digest, base64.b64decode(wanted))
    except (ValueError, binascii.Error):
        return False
