"""The text of a known_hosts file: which keys are on record for a host, and how it reads with others. It verifies none.

Certificates of hosts are not supported: an `@cert-authority` line names nobody here. Standard library only (3.10+).
Source: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT: patterns, `[host]:port`, hashed names `|1|salt|hash`, markers.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fabfile.model.public_key import PublicKey

_REVOKED = "@revoked"
SSH_PORT = 22


@dataclass(frozen=True)
class Record:
    """A line that names a host: in which file, the how manieth, with which patterns and key."""

    file: str
    number: int
    patterns: str
    key: PublicKey
    revoked: bool = False

    @property
    def place(self) -> str:
        """The line for people."""
        return f"{self.file} line {self.number}"


def host_name(address: str, port: int) -> str:
    """How a host is called in these files."""
    return address if port == SSH_PORT else f"[{address}]:{port}"


def records(file: str, text: str, address: str, port: int) -> tuple[Record, ...]:
    """Every line of a file's text that names the host, in order, revoked keys too."""
    name = host_name(address.casefold(), port)
    return tuple(
        record
        for number, line in enumerate(text.splitlines(), 1)
        if (record := _record(file, number, line)) is not None and _names(record.patterns, name)
    )


def usable(found: Sequence[Record]) -> tuple[Record, ...]:
    """The lines whose key is accepted: the first one of each kind of key, without those that a line revokes."""
    revoked = {record.key.blob for record in found if record.revoked}
    first: dict[str, Record] = {}
    for record in found:
        if record.key.blob not in revoked:
            first.setdefault(record.key.type, record)
    return tuple(first.values())


def rewritten(text: str, names: Iterable[str], keys: Iterable[tuple[str, PublicKey]]) -> str:
    """The text of a file without its records of the names, and with these names and keys at its end.

    A line that also names others keeps them; marked lines stay. Raises ValueError for a line with a wildcard that
    names one of them: whom else it means is not known here.
    """
    wanted = {name.casefold() for name in names}
    rows = text.split("\n")
    rows = rows[:-1] if rows[-1] == "" else rows
    kept = [row for number, line in enumerate(rows, 1) if (row := _without(line, number, wanted)) is not None]
    return "".join(f"{row}\n" for row in [*kept, *(f"{name} {key.type} {key.blob}" for name, key in keys)])


def _without(line: str, number: int, names: set[str]) -> str | None:
    """The line without the names; None where it names nobody else."""
    record = _record("", number, line)
    if record is None or record.revoked or not any(_names(record.patterns, name) for name in names):
        return line
    patterns = record.patterns.split(",")
    if any(char in pattern for pattern in patterns for char in "*?!"):
        raise ValueError(f"line {number} names it by a wildcard ({record.patterns})")
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
