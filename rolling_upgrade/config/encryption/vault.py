"""Decrypt and encrypt ansible-vault 1.1 and 1.2: AES-256-CTR, HMAC-SHA256, PBKDF2 keys.

Source: Ansible's documentation, "Ansible Vault payload format 1.1 - 1.2".
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import os
import re
from dataclasses import dataclass

from rolling_upgrade.config.encryption import EncryptionError, trimmed

_ROUNDS = 10_000
_SALT_BYTES = 32
_BLOCK_BYTES = 16
_COLUMNS = 80
_HEADER = re.compile(rb"\$ANSIBLE_VAULT;(?P<version>[^;\r\n]*);(?P<cipher>[^;\r\n]*)(?:;(?P<label>[^;\r\n]*))?\s*$")


@dataclass(frozen=True)
class _Envelope:
    label: str
    salt: bytes
    digest: bytes
    body: bytes


def label(data: bytes) -> str:
    """Return the vault id of a file, empty without one. Raises EncryptionError."""
    return _read(data).label


def decrypt(data: bytes, password: bytes) -> bytes:
    """Return the plaintext. Raises EncryptionError for a damaged file or a wrong password, which look the same."""
    envelope = _read(data)
    cipher_key, digest_key, start = _keys(password, envelope.salt)
    if not hmac.compare_digest(hmac.digest(digest_key, envelope.body, "sha256"), envelope.digest):
        raise EncryptionError(
            "an ansible-vault file that the password does not decrypt", "its password, and an intact copy"
        )
    return _unpadded(_cipher(cipher_key, start, envelope.body))


def encrypt(text: bytes, password: bytes, *, label: str = "") -> bytes:
    """Encrypt the text: in version 1.2 with a label, else in 1.1, as ansible-vault does."""
    salt = os.urandom(_SALT_BYTES)
    cipher_key, digest_key, start = _keys(password, salt)
    fill = _BLOCK_BYTES - len(text) % _BLOCK_BYTES
    body = _cipher(cipher_key, start, text + bytes([fill]) * fill)
    digest = hmac.digest(digest_key, body, "sha256")
    written = binascii.hexlify(b"\n".join(binascii.hexlify(part) for part in (salt, digest, body)))
    header = b"$ANSIBLE_VAULT;1.2;AES256;" + label.encode() if label else b"$ANSIBLE_VAULT;1.1;AES256"
    lines = [written[at : at + _COLUMNS] for at in range(0, len(written), _COLUMNS)]
    return b"\n".join([header, *lines]) + b"\n"


def _read(data: bytes) -> _Envelope:
    header, _, rest = trimmed(data).partition(b"\n")
    match = _HEADER.match(header)
    if match is None or match["version"] not in (b"1.1", b"1.2") or match["cipher"] != b"AES256":
        raise EncryptionError("an ansible-vault file of an unsupported version", "$ANSIBLE_VAULT;1.1;AES256 or 1.2")
    try:
        parts = binascii.unhexlify(b"".join(rest.split())).split(b"\n")
        salt, digest, body = (binascii.unhexlify(part) for part in parts)
    except ValueError:
        raise EncryptionError("a damaged or truncated ansible-vault file", "an intact copy") from None
    return _Envelope((match["label"] or b"").decode("utf-8", "replace"), salt, digest, body)


def _keys(password: bytes, salt: bytes) -> tuple[bytes, bytes, bytes]:
    """Derive the cipher key, the HMAC key and the initial counter."""
    derived = hashlib.pbkdf2_hmac("sha256", password, salt, _ROUNDS, 32 + 32 + _BLOCK_BYTES)
    return derived[:32], derived[32:64], derived[64:]


def _cipher(key: bytes, start: bytes, text: bytes) -> bytes:
    """Apply AES in counter mode, which is its own inverse."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import CTR

    running = Cipher(AES(key), CTR(start)).encryptor()
    return running.update(text) + running.finalize()


def _unpadded(text: bytes) -> bytes:
    fill = text[-1] if text else 0
    if not 1 <= fill <= _BLOCK_BYTES or text[-fill:] != bytes([fill]) * fill:
        raise EncryptionError("an ansible-vault file with invalid padding", "an intact copy")
    return text[:-fill]
