"""Read, decrypt and encrypt age files with pyrage."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rolling_upgrade.config.encryption import AGE_BINARY, EncryptionError, is_armored, trimmed
from rolling_upgrade.config.encryption.recipients import Recipient

#: pyrage's message when no identity matches; its other messages are about the file.
_NO_MATCH = "No matching keys found"
_INTACT_COPY = "an intact copy, for example from Git"


@dataclass(frozen=True)
class Stanza:
    """One recipient in the header of a file. `tag` is the short hash of an SSH key, empty for other kinds."""

    kind: str
    tag: str = ""


def stanzas(data: bytes) -> tuple[Stanza, ...]:
    """List the recipients of a file. Raises EncryptionError when its header is truncated.

    Source: age-encryption.org/v1: a recipient is `-> TYPE ARGUMENTS` with its body below; `---` ends the header.
    """
    recipients: list[Stanza] = []
    for line in _binary(data).split(b"\n"):
        if line.startswith(b"---"):
            return tuple(recipients)
        if line.startswith(b"-> "):
            words = line.decode("ascii", "replace").split()
            if len(words) > 1 and not words[1].endswith("-grease"):
                recipients.append(Stanza(words[1], words[2] if words[1].startswith("ssh-") and len(words) > 2 else ""))
    raise EncryptionError("an age file with a truncated header", _INTACT_COPY)


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
        raise EncryptionError("an age file with damaged or truncated armor", _INTACT_COPY)
    return decoded


def describe_recipients(stanzas: Sequence[Stanza], known: Sequence[Recipient]) -> str:
    """Describe the recipients of a file, by owner where the recipients file lists the key."""
    names = {recipient.tag: recipient.title for recipient in known if recipient.tag}
    return ", ".join(_recipients(stanzas, names)) or "no recipient"


def _recipients(stanzas: Sequence[Stanza], names: dict[str, str]) -> Iterator[str]:
    for stanza in stanzas:
        if stanza.tag:
            yield names.get(stanza.tag, f"an unlisted {stanza.kind} key with the hash {stanza.tag}")
    plain = sum(stanza.kind == "X25519" for stanza in stanzas)
    if plain:
        yield "an age key" if plain == 1 else f"{plain} age keys"
    if any(stanza.kind == "scrypt" for stanza in stanzas):
        yield "anyone with its passphrase"


def differences(stanzas: Sequence[Stanza], listed: Sequence[Recipient]) -> tuple[str, ...]:
    """Describe each difference between a file's recipients and the recipients file.

    A file shows no identity of an age key, so age keys are only counted.
    """
    tags = {stanza.tag for stanza in stanzas if stanza.tag}
    missing = [recipient for recipient in listed if recipient.tag and recipient.tag not in tags]
    differing = [f"{recipient.title} is listed, but the file is not encrypted for that key" for recipient in missing]
    unlisted = sorted(tags - {recipient.tag for recipient in listed})
    differing += [f"the file is encrypted for an SSH key with the hash {tag}, which is not listed" for tag in unlisted]
    in_file = sum(stanza.kind == "X25519" for stanza in stanzas)
    in_list = sum(recipient.key.startswith("age1") for recipient in listed)
    if in_file != in_list:
        differing.append(f"the file is encrypted for {in_file} age keys, but {in_list} are listed")
    return tuple(differing)


def encrypt(text: bytes, recipients: Sequence[Recipient], *, armored: bool) -> bytes:
    """Encrypt the text for the recipients. Raises EncryptionError for a key that age cannot use."""
    import pyrage

    keys = [public_key(recipient) for recipient in recipients]
    try:
        encrypted: bytes = pyrage.encrypt(text, keys, armored=armored)
    except pyrage.EncryptError as error:
        raise EncryptionError(f"a text that age cannot encrypt ({error})", "at least one recipient") from None
    return encrypted


def public_key(recipient: Recipient) -> Any:
    """Return pyrage's object for a public key. Raises EncryptionError for a key that age cannot use."""
    from pyrage import RecipientError, ssh, x25519

    parse = x25519.Recipient.from_str if recipient.key.startswith("age1") else ssh.Recipient.from_str
    try:
        return parse(recipient.key)
    except RecipientError as error:
        found = f"the key of {recipient.title}, which age cannot use ({error})"
        raise EncryptionError(found, "another public key from that person") from None


def decrypt(data: bytes, identities: Sequence[Any]) -> bytes | None:
    """Return the plaintext, None when no identity matches. Raises EncryptionError for a damaged file."""
    import pyrage

    try:
        plaintext: bytes = pyrage.decrypt(trimmed(data), list(identities))
    except pyrage.DecryptError as error:
        if str(error) == _NO_MATCH:
            return None
        raise EncryptionError(f"a damaged or truncated age file ({error})", _INTACT_COPY) from None
    return plaintext
