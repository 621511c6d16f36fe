"""The forms of an encrypted file, told apart by how it begins. It opens nothing."""

from __future__ import annotations

from enum import Enum

#: What the forms begin with. Source: age-encryption.org/v1, RFC 9580 section 6.2, Ansible Vault payload format.
AGE_BINARY = b"age-encryption.org/v1"
AGE_ARMOR = b"-----BEGIN AGE ENCRYPTED FILE-----"
VAULT_HEADER = b"$ANSIBLE_VAULT;"
PGP_ARMOR = b"-----BEGIN PGP MESSAGE-----"

#: OpenPGP packets that open an encrypted message, and the versions that they have. Source: RFC 9580, sections 5.1, 5.3.
_SESSION_KEY_PACKETS = {1: (2, 3, 6), 3: (4, 5, 6)}


class Form(Enum):
    """How a file is encrypted; the value is what people call it."""

    AGE = "age"
    VAULT = "ansible-vault"
    GPG = "gpg"


class SealError(Exception):
    """A file that cannot be opened or encrypted: what was found, and what is needed instead."""

    def __init__(self, found: str, needed: str) -> None:
        super().__init__(f"{found}; {needed}")
        self.found = found
        self.needed = needed


class NoTerminal(SealError):
    """Nobody can be asked for what is needed."""


def recognise(data: bytes) -> Form | None:
    """The form of an encrypted file, None for anything else."""
    text = trimmed(data)
    if text.startswith((AGE_BINARY, AGE_ARMOR)):
        return Form.AGE
    if text.startswith(VAULT_HEADER):
        return Form.VAULT
    if text.startswith(PGP_ARMOR) or _opens_with_session_key(data):
        return Form.GPG
    return None


def is_armored(data: bytes) -> bool:
    """Whether an age or gpg file is text."""
    return trimmed(data).startswith((AGE_ARMOR, PGP_ARMOR))


def trimmed(data: bytes) -> bytes:
    """The bytes without a byte order mark and blank lines before them."""
    return data.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")


def _opens_with_session_key(data: bytes) -> bool:
    """Whether the first packet is one that holds a session key: what `gpg --encrypt` and `--symmetric` write first."""
    if len(data) < 7 or not data[0] & 0x80:
        return False
    if data[0] & 0x40:
        tag, first = data[0] & 0x3F, data[1]
        lengths = 1 if first < 192 else 2 if first < 224 else 5
    else:
        tag, lengths = (data[0] >> 2) & 0x0F, (1, 2, 4, 0)[data[0] & 0x03]
    return data[1 + lengths] in _SESSION_KEY_PACKETS.get(tag, ())
