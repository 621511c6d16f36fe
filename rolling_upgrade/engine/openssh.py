"""Public keys of OpenSSH, parsed strictly, and the records of host keys in known_hosts files.

Error messages never repeat the input, which may be a private key pasted by mistake.
Standard library only (Python 3.10+). Source: sshd(8), AUTHORIZED_KEYS FILE FORMAT and SSH_KNOWN_HOSTS FILE FORMAT;
RFC 4253, 6.6; RFC 5656, 3.1.
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
from rolling_upgrade.engine.untrusted import LARGE_ANSWER_BYTES

#: Shorter RSA keys are refused.
LEAST_RSA_BITS = 3072
LONGEST_COMMENT = 200

_CURVES = {
    "ecdsa-sha2-nistp256": (b"nistp256", 65),
    "ecdsa-sha2-nistp384": (b"nistp384", 97),
    "ecdsa-sha2-nistp521": (b"nistp521", 133),
    "sk-ecdsa-sha2-nistp256@openssh.com": (b"nistp256", 65),
}
_EDWARDS = ("ssh-ed25519", "sk-ssh-ed25519@openssh.com")
#: The accepted key types.
TYPES = (*_EDWARDS, *_CURVES, "ssh-rsa")
_BEGINNINGS = ("ssh-", "rsa-sha2-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-")
_PRIVATE = ("PRIVATE KEY", "PuTTY-User-Key-File", "openssh-key-v1")
#: The start of an OpenSSH private key below its first line: base64 of `openssh-key-v1`.
_PRIVATE_BODY = "b3BlbnNzaC1rZXktdjE"


@dataclass(frozen=True)
class PublicKey:
    """A key: its type, its bytes in base64, and its comment."""

    type: str
    blob: str
    comment: str = ""

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`, as in ssh-keygen; "" if the bytes are no key."""
        try:
            digest = hashlib.sha256(base64.b64decode(self.blob, validate=True)).digest()
        except (ValueError, binascii.Error):
            return ""
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def line(self, comment: str) -> str:
        """The key as one line of an authorized_keys file."""
        return f"{self.type} {self.blob} {comment}".rstrip()


def is_type(word: str) -> bool:
    """Whether the word is a key type, including types that are refused here."""
    return word.startswith(_BEGINNINGS) and word.isascii()


def read_public_key(text: str) -> PublicKey:
    """Parse one public key strictly. Raises ValueError, which never repeats the text."""
    if any(mark in text for mark in _PRIVATE) or _PRIVATE_BODY in text:
        raise ValueError("a PRIVATE key, which never leaves its machine (the .pub file beside it is the public one)")
    if "BEGIN SSH2 PUBLIC KEY" in text:
        raise ValueError("a key in the format of RFC 4716 (ssh-keygen -i -f FILE converts it)")
    line = text.strip(" \t\r\n")
    if not line:
        raise ValueError("no key")
    if "\n" in line or "\r" in line:
        raise ValueError("more than one line")
    type, _, rest = line.partition(" ")
    if not is_type(type):
        if any(is_type(word) for word in rest.split()):
            raise ValueError("options before the key")
        raise ValueError(f"not an OpenSSH public key; expected: ssh-ed25519 AAAA… NAME ({', '.join(TYPES)})")
    _check_type(type)
    blob, _, comment = rest.strip().partition(" ")
    comment = comment.strip()
    if not comment.isprintable() or len(comment) > LONGEST_COMMENT:
        raise ValueError(f"control characters in the comment, or more than {LONGEST_COMMENT} characters")
    _check_bytes(type, _decoded(blob))
    return PublicKey(type, blob, comment)


def _check_type(type: str) -> None:
    if type == "ssh-dss":
        raise ValueError("a DSA key, which is too weak (ssh-keygen -t ed25519 makes a better one)")
    if "-cert-v" in type:
        raise ValueError("a certificate in place of the public key")
    if type not in TYPES:
        raise ValueError(f"an unsupported key type; use one of {', '.join(TYPES)}")


def _decoded(blob: str) -> bytes:
    try:
        data = base64.b64decode(blob, validate=True)
    except (ValueError, binascii.Error):
        raise ValueError("an incomplete key: its second word is not base64") from None
    if base64.b64encode(data).decode() != blob:
        raise ValueError("an invalid key: its base64 is not canonical")
    return data


def _check_bytes(type: str, data: bytes) -> None:
    """Raise ValueError unless the bytes are exactly one key of the type, and strong enough."""
    fields = _fields(data)
    security = 1 if type.startswith("sk-") else 0
    if not fields or fields[0] != type.encode():
        raise ValueError("an invalid key: its data does not match its type")
    body = fields[1 : len(fields) - security]
    if type in _EDWARDS:
        fits = len(body) == 1 and len(body[0]) == 32
    elif type in _CURVES:
        curve, length = _CURVES[type]
        fits = len(body) == 2 and body[0] == curve and len(body[1]) == length and body[1][0] == 4
    else:
        fits = len(body) == 2
    if not fits:
        raise ValueError("an invalid key: its data has the wrong length")
    if type == "ssh-rsa":
        _check_rsa(*(int.from_bytes(number, "big") for number in body))


def _check_rsa(exponent: int, modulus: int) -> None:
    if modulus.bit_length() < LEAST_RSA_BITS:
        raise ValueError(
            f"an RSA key of {modulus.bit_length()} bits; at least {LEAST_RSA_BITS}, or use ssh-keygen -t ed25519"
        )
    if exponent < 3 or exponent % 2 == 0 or modulus % 2 == 0:
        raise ValueError("an invalid key: its RSA numbers are invalid")


def _fields(data: bytes) -> list[bytes]:
    """The length-prefixed strings of the wire format. Raises ValueError if the lengths do not add up."""
    found, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        at += 4
        if at + length > len(data):
            raise ValueError("an invalid key: its data is truncated")
        found.append(data[at : at + length])
        at += length
    return found


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
        if (record := _record_of(file, number, line)) is not None and _names(record.patterns, name)
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
    record = _record_of("", number, line)
    if record is None or record.revoked or not any(_names(record.patterns, name) for name in names):
        return line
    patterns = record.patterns.split(",")
    if any(char in pattern for pattern in patterns for char in "*?!"):
        raise ValueError(f"line {number} matches it with a wildcard ({record.patterns})")
    left = [pattern for pattern in patterns if not any(_fits(pattern, name) for name in names)]
    return " ".join([",".join(left), *line.split()[1:]]) if left else None


def _record_of(file: str, number: int, line: str) -> Record | None:
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
