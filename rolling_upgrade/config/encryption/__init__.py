"""Files encrypted by age, ansible-vault or gpg: how a file is encrypted, and the errors of all formats.

Plaintext stays in memory. pyrage and cryptography are imported when a file is opened.
"""

from __future__ import annotations

from enum import Enum

#: The first bytes of encrypted files.
#: Source: age-encryption.org/v1, RFC 9580 section 6.2, Ansible Vault payload format.
AGE_BINARY = b"age-encryption.org/v1"
AGE_ARMOR = b"-----BEGIN AGE ENCRYPTED FILE-----"
VAULT_HEADER = b"$ANSIBLE_VAULT;"
PGP_ARMOR = b"-----BEGIN PGP MESSAGE-----"

#: OpenPGP packets that start an encrypted message, and their versions.
#: Source: RFC 9580, sections 5.1, 5.3.
_SESSION_KEY_PACKETS = {1: (2, 3, 6), 3: (4, 5, 6)}


class Encryption(Enum):
    """The program that encrypts a file."""

    AGE = "age"
    VAULT = "ansible-vault"
    GPG = "gpg"


class EncryptionError(Exception):
    """A file cannot be decrypted or encrypted: `found` is the state, `needed` the remedy."""

    def __init__(self, found: str, needed: str) -> None:
        super().__init__(f"{found}; {needed}")
        self.found = found
        self.needed = needed


class NoTerminal(EncryptionError):
    """A password or passphrase is needed, and there is no terminal to prompt on."""


def detect(data: bytes) -> Encryption | None:
    """Return how a file is encrypted, None for plaintext."""
    text = trimmed(data)
    if text.startswith((AGE_BINARY, AGE_ARMOR)):
        return Encryption.AGE
    if text.startswith(VAULT_HEADER):
        return Encryption.VAULT
    if text.startswith(PGP_ARMOR) or _opens_with_session_key(data):
        return Encryption.GPG
    return None


def is_armored(data: bytes) -> bool:
    """Return whether an age or gpg file is ASCII-armored."""
    return trimmed(data).startswith((AGE_ARMOR, PGP_ARMOR))


def trimmed(data: bytes) -> bytes:
    """Strip a byte order mark and leading blank lines."""
    return data.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")


def _opens_with_session_key(data: bytes) -> bool:
    """Return whether the first packet holds a session key, as files by `gpg --encrypt` and `--symmetric` start."""
    if len(data) < 7 or not data[0] & 0x80:
        return False
    if data[0] & 0x40:
        tag, first = data[0] & 0x3F, data[1]
        lengths = 1 if first < 192 else 2 if first < 224 else 5
    else:
        tag, lengths = (data[0] >> 2) & 0x0F, (1, 2, 4, 0)[data[0] & 0x03]
    return data[1 + lengths] in _SESSION_KEY_PACKETS.get(tag, ())
