"""Synthetic SSH public keys without private keys."""

from __future__ import annotations

import base64

from rolling_upgrade.engine.openssh import PublicKey, read_public_key


def wire(*fields: bytes) -> str:
    """Encode fields in the SSH wire format, as base64."""
    return base64.b64encode(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).decode()


def ed25519(number: int) -> str:
    """Return the text of an ed25519 key without a comment; each number gives another key."""
    return f"ssh-ed25519 {wire(b'ssh-ed25519', bytes([number]) * 32)}"


def rsa(bits: int) -> str:
    """Return the text of an RSA key of this size."""
    modulus = ((1 << (bits - 1)) | 1).to_bytes(bits // 8 + 1, "big")
    return "ssh-rsa " + wire(b"ssh-rsa", b"\x01\x00\x01", modulus)


def key(number: int) -> PublicKey:
    """Return the parsed ed25519 key of a number."""
    return read_public_key(ed25519(number))
