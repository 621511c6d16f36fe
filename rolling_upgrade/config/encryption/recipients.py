"""Parse and edit a recipients file: one public key per line, followed by its owner."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rolling_upgrade.config.encryption import Encryption

_AGE = re.compile(r"age1[02-9ac-hj-np-z]{58}")
_FINGERPRINT = re.compile(r"[0-9A-F]{40}(?:[0-9A-F]{24})?")
_SSH = ("ssh-ed25519", "ssh-rsa")
_MARK = re.compile(r"# Encrypted for the list with the hash ")
EXPECTED = "ssh-ed25519 KEY, ssh-rsa KEY, age1… or gpg FINGERPRINT (40 digits), followed by the owner"


@dataclass(frozen=True)
class Recipient:
    """One public key and its owner."""

    key: str
    comment: str = ""

    @property
    def encryption(self) -> Encryption:
        """How a file for this key is encrypted."""
        return Encryption.GPG if self.key.startswith("gpg ") else Encryption.AGE

    @property
    def tag(self) -> str:
        """The short hash by which an age file names an SSH key, empty for other keys. Source: age's specification."""
        return ssh_tag(self._blob) if self.key.startswith(_SSH) else ""

    @property
    def fingerprint(self) -> str:
        """The fingerprint as `ssh-keygen -l` prints it; other keys are their own fingerprint."""
        if not self.key.startswith(_SSH):
            return self.key.removeprefix("gpg ")
        return "SHA256:" + base64.b64encode(hashlib.sha256(self._blob).digest()).decode().rstrip("=")

    @property
    def title(self) -> str:
        """The owner, or the fingerprint when no owner is given."""
        return self.comment or self.fingerprint

    @property
    def line(self) -> str:
        """The line of the file."""
        return f"{self.key} {self.comment}".rstrip()

    @property
    def _blob(self) -> bytes:
        return base64.b64decode(self.key.split()[1])


def with_mark(text: str, listed: Sequence[Recipient]) -> str:
    """Add a hash of the listed keys to the list, because an encrypted file does not show its age keys."""
    kept = "".join(line for line in text.splitlines(keepends=True) if not _MARK.match(line))
    return (
        f"{kept.rstrip()}\n{_mark(listed)}\n" if any(recipient.key.startswith("age1") for recipient in listed) else kept
    )


def is_mark_current(text: str, listed: Sequence[Recipient]) -> bool:
    """Return whether the list has no hash, or the hash of these recipients."""
    marks = [line.strip() for line in text.splitlines() if _MARK.match(line)]
    return not marks or marks == [_mark(listed)]


def _mark(listed: Sequence[Recipient]) -> str:
    keys = "\n".join(sorted(recipient.key for recipient in listed))
    return f"# Encrypted for the list with the hash {hashlib.sha256(keys.encode()).hexdigest()[:16]}"


def ssh_tag(blob: bytes) -> str:
    """Return the first four bytes of a public key's SHA-256 as an age file writes them."""
    return base64.b64encode(hashlib.sha256(blob).digest()[:4]).decode().rstrip("=")


def parse_line(line: str) -> Recipient | None:
    """Parse one line; None when it is not a usable public key."""
    words = line.split()
    if words and words[0] in _SSH:
        return _ssh_recipient(words)
    if words and _AGE.fullmatch(words[0]):
        return Recipient(words[0], " ".join(words[1:]).lstrip("# "))
    if len(words) > 1 and words[0] == "gpg" and _FINGERPRINT.fullmatch(words[1].upper()):
        return Recipient(f"gpg {words[1].upper()}", " ".join(words[2:]).lstrip("# "))
    return None


def _ssh_recipient(words: Sequence[str]) -> Recipient | None:
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (IndexError, ValueError):
        return None
    kind = words[0].encode()
    if not blob.startswith(len(kind).to_bytes(4, "big") + kind):
        return None
    return Recipient(f"{words[0]} {words[1]}", " ".join(words[2:]))


def parse(text: str) -> tuple[tuple[Recipient, ...], tuple[tuple[int, str], ...]]:
    """Parse a recipients file: its recipients, and the number and fault of each invalid line."""
    recipients: dict[str, Recipient] = {}
    faults: list[tuple[int, str]] = []
    for number, line in _lines(text):
        recipient = parse_line(line)
        if recipient is None:
            faults.append((number, _fault(line)))
        elif recipient.key in recipients:
            faults.append((number, f"a duplicate of the key of {recipients[recipient.key].title}"))
        else:
            recipients[recipient.key] = recipient
    return tuple(recipients.values()), tuple(faults)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()


def _fault(line: str) -> str:
    word = line.split()[0]
    if "PRIVATE" in line or line.upper().startswith("AGE-SECRET-KEY-"):
        return "a private key, which must be replaced because this file is public"
    if word.startswith(("sk-", "ecdsa-")):
        return f"a key of type {word}, which age does not support"
    return "a line that is not a public key"


def add_line(text: str, new: Recipient) -> str:
    """Return the text of the file with one more recipient."""
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{new.line}\n"


def remove_line(text: str, recipient: Recipient) -> str:
    """Return the text of the file without a recipient."""
    lines = text.splitlines(keepends=True)
    dropped = [number for number, line in _lines(text) if (parsed := parse_line(line)) and parsed.key == recipient.key]
    return "".join(line for number, line in enumerate(lines, start=1) if number not in dropped)
