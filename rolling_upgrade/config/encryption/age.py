"""Files in age's form, by pyrage: what their headers show, and opening and writing them. It looks for no key."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fabfile.sealing.forms import AGE_BINARY, SealError, is_armored, trimmed
from fabfile.sealing.recipients import Recipient

#: What pyrage says where no identity fits; every other refusal is about the file.
_NO_MATCH = "No matching keys found"
_WHOLE = "the file as it was written, for example from Git"


@dataclass(frozen=True)
class Stanza:
    """One recipient of a file, as far as the file shows it; `tag` is the short hash of an SSH key, else ''."""

    kind: str
    tag: str = ""


def stanzas(data: bytes) -> tuple[Stanza, ...]:
    """For which kinds of keys a file is encrypted. Raises SealError when its header is not whole.

    Source: age-encryption.org/v1: a recipient is `-> TYPE ARGUMENTS` with its body below; `---` ends the header.
    """
    found: list[Stanza] = []
    for line in _binary(data).split(b"\n"):
        if line.startswith(b"---"):
            return tuple(found)
        if line.startswith(b"-> "):
            words = line.decode("ascii", "replace").split()
            if len(words) > 1 and not words[1].endswith("-grease"):
                found.append(Stanza(words[1], words[2] if words[1].startswith("ssh-") and len(words) > 2 else ""))
    raise SealError("an age file whose header is cut off", _WHOLE)


def _binary(data: bytes) -> bytes:
    text = trimmed(data)
    if not is_armored(data):
        return text
    lines = text.splitlines()[1:]
    body = b"".join(line.strip() for line in lines if not line.startswith(b"-----"))
    try:
        decoded = base64.b64decode(body, validate=True)
    except ValueError:
        decoded = b""
    if not decoded.startswith(AGE_BINARY):
        raise SealError("an age file whose armor is damaged or cut off", _WHOLE)
    return decoded


def described(found: Sequence[Stanza], known: Sequence[Recipient]) -> str:
    """For whom a file is, in words: names where the recipients file knows the key."""
    names = {one.tag: one.title for one in known if one.tag}
    return ", ".join(_words(found, names)) or "nobody"


def _words(found: Sequence[Stanza], names: dict[str, str]) -> Iterator[str]:
    for stanza in found:
        if stanza.tag:
            yield names.get(stanza.tag, f"an unlisted {stanza.kind} key with the hash {stanza.tag}")
    plain = sum(stanza.kind == "X25519" for stanza in found)
    if plain:
        yield "an age key" if plain == 1 else f"{plain} age keys"
    if any(stanza.kind == "scrypt" for stanza in found):
        yield "whoever knows its passphrase"


def differences(found: Sequence[Stanza], listed: Sequence[Recipient]) -> tuple[str, ...]:
    """Where a file and the list of its recipients disagree, as far as the file shows it: age keys are only counted."""
    tags = {stanza.tag for stanza in found if stanza.tag}
    said = [
        f"{one.title} is listed, and the file is not for that key" for one in listed if one.tag and one.tag not in tags
    ]
    known = {one.tag for one in listed}
    said += [f"the file is for an SSH key with the hash {tag}, which is not listed" for tag in sorted(tags - known)]
    theirs = sum(stanza.kind == "X25519" for stanza in found)
    ours = sum(one.key.startswith("age1") for one in listed)
    if theirs != ours:
        said.append(f"the file is for {theirs} age keys, and {ours} are listed")
    return tuple(said)


def encrypt(text: bytes, recipients: Sequence[Recipient], *, armored: bool) -> bytes:
    """The text for these recipients. Raises SealError for a key that age cannot use."""
    from pyrage import EncryptError
    from pyrage import encrypt as seal

    keys = [public(one) for one in recipients]
    try:
        sealed: bytes = seal(text, keys, armored=armored)
    except EncryptError as error:
        raise SealError(f"a text that age does not encrypt ({error})", "at least one recipient") from None
    return sealed


def public(one: Recipient) -> Any:
    """The key as pyrage has it. Raises SealError for one that age cannot use."""
    from pyrage import RecipientError, ssh, x25519

    make = x25519.Recipient.from_str if one.key.startswith("age1") else ssh.Recipient.from_str
    try:
        return make(one.key)
    except RecipientError as error:
        raise SealError(f"the key of {one.title}, which age cannot use ({error})", "another key of theirs") from None


def decrypt(data: bytes, identities: Sequence[Any]) -> bytes | None:
    """The plaintext, None when none of the identities fits. Raises SealError for a damaged file."""
    from pyrage import DecryptError
    from pyrage import decrypt as unseal

    try:
        opened: bytes = unseal(trimmed(data), list(identities))
    except DecryptError as error:
        if str(error) == _NO_MATCH:
            return None
        raise SealError(f"an age file that is damaged or cut off ({error})", _WHOLE) from None
    return opened
