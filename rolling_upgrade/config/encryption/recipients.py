"""The file that says for whom an environment is encrypted: one public key a line, with who it is. It opens nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fabfile.sealing.forms import Form

_AGE = re.compile(r"age1[02-9ac-hj-np-z]{58}")
_FINGERPRINT = re.compile(r"[0-9A-F]{40}(?:[0-9A-F]{24})?")
_SSH = ("ssh-ed25519", "ssh-rsa")
_MARK = re.compile(r"# Encrypted for the list with the hash ")
EXPECTED = "ssh-ed25519 KEY, ssh-rsa KEY, age1… or gpg FINGERPRINT (40 digits), then who it is"


@dataclass(frozen=True)
class Recipient:
    """One public key, and whose it is."""

    key: str
    comment: str = ""

    @property
    def form(self) -> Form:
        """The form of a file that this key can open."""
        return Form.GPG if self.key.startswith("gpg ") else Form.AGE

    @property
    def tag(self) -> str:
        """What an age file shows of an SSH key; '' for another key. Source: age's specification, ssh recipients."""
        return ssh_tag(self._blob) if self.key.startswith(_SSH) else ""

    @property
    def fingerprint(self) -> str:
        """A short name of the key: as ssh-keygen -l shows it, else the key itself."""
        if not self.key.startswith(_SSH):
            return self.key.removeprefix("gpg ")
        return "SHA256:" + base64.b64encode(hashlib.sha256(self._blob).digest()).decode().rstrip("=")

    @property
    def title(self) -> str:
        """Whose key it is, or the key where nobody wrote that down."""
        return self.comment or self.fingerprint

    @property
    def line(self) -> str:
        """The line of the file."""
        return f"{self.key} {self.comment}".rstrip()

    @property
    def _blob(self) -> bytes:
        return base64.b64decode(self.key.split()[1])


def marked(text: str, listed: Sequence[Recipient]) -> str:
    """The text of the list with the mark of those for whom the file is encrypted now: age keys do not show in it."""
    kept = "".join(line for line in text.splitlines(keepends=True) if not _MARK.match(line))
    return f"{kept.rstrip()}\n{_mark(listed)}\n" if any(one.key.startswith("age1") for one in listed) else kept


def is_marked(text: str, listed: Sequence[Recipient]) -> bool:
    """Whether the list has no mark, or the mark of these."""
    found = [line.strip() for line in text.splitlines() if _MARK.match(line)]
    return not found or found == [_mark(listed)]


def _mark(listed: Sequence[Recipient]) -> str:
    keys = "\n".join(sorted(one.key for one in listed))
    return f"# Encrypted for the list with the hash {hashlib.sha256(keys.encode()).hexdigest()[:16]}"


def ssh_tag(blob: bytes) -> str:
    """The four bytes of a public key's hash that an age file shows, as the file writes them."""
    return base64.b64encode(hashlib.sha256(blob).digest()[:4]).decode().rstrip("=")


def recipient(line: str) -> Recipient | None:
    """What one line says, None where it is no public key that a file can be encrypted for."""
    words = line.split()
    if words and words[0] in _SSH:
        return _of_ssh(words)
    if words and _AGE.fullmatch(words[0]):
        return Recipient(words[0], " ".join(words[1:]).lstrip("# "))
    if len(words) > 1 and words[0] == "gpg" and _FINGERPRINT.fullmatch(words[1].upper()):
        return Recipient(f"gpg {words[1].upper()}", " ".join(words[2:]).lstrip("# "))
    return None


def _of_ssh(words: Sequence[str]) -> Recipient | None:
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (IndexError, ValueError):
        return None
    kind = words[0].encode()
    if not blob.startswith(len(kind).to_bytes(4, "big") + kind):
        return None
    return Recipient(f"{words[0]} {words[1]}", " ".join(words[2:]))


def read(text: str) -> tuple[tuple[Recipient, ...], tuple[tuple[int, str], ...]]:
    """The recipients of a file, and the number of each line at fault with what is wrong there."""
    found: dict[str, Recipient] = {}
    faults: list[tuple[int, str]] = []
    for number, line in _lines(text):
        one = recipient(line)
        if one is None:
            faults.append((number, _why_not(line)))
        elif one.key in found:
            faults.append((number, f"the key of {found[one.key].title} a second time"))
        else:
            found[one.key] = one
    return tuple(found.values()), tuple(faults)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()


def _why_not(line: str) -> str:
    word = line.split()[0]
    if "PRIVATE" in line or line.upper().startswith("AGE-SECRET-KEY-"):
        return "a private key, which must be made anew: this file is no secret"
    if word.startswith(("sk-", "ecdsa-")):
        return f"a key of the kind {word}, which age cannot encrypt for"
    return "a line that is no public key"


def added(text: str, new: Recipient) -> str:
    """The text of the file with one more line."""
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{new.line}\n"


def removed(text: str, gone: Recipient) -> str:
    """The text of the file without the line of a recipient."""
    lines = text.splitlines(keepends=True)
    dropped = [number for number, line in _lines(text) if (one := recipient(line)) and one.key == gone.key]
    return "".join(line for number, line in enumerate(lines, start=1) if number not in dropped)
