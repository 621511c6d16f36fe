"""Public keys made of bytes, for tests: no key pair stands behind them."""

from __future__ import annotations

import base64

from rolling_upgrade.engine.openssh import PublicKey, read_public_key


def wire(*fields: bytes) -> str:
    """Fields in the wire format, as base64."""
    return base64.b64encode(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).decode()


def ed25519(number: int) -> str:
    """The text of an ed25519 key of its own for each number, without a comment."""
    return f"ssh-ed25519 {wire(b'ssh-ed25519', bytes([number]) * 32)}"


def rsa(bits: int) -> str:
    """The text of an RSA key of that size."""
    modulus = ((1 << (bits - 1)) | 1).to_bytes(bits // 8 + 1, "big")
    return "ssh-rsa " + wire(b"ssh-rsa", b"\x01\x00\x01", modulus)


def key(number: int) -> PublicKey:
    """The same, read."""
    return read_public_key(ed25519(number))
