"""Load the private keys that can decrypt age files: age keys and SSH keys, with or without a passphrase."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rolling_upgrade.config.encryption import EncryptionError
from rolling_upgrade.config.encryption.age import Stanza
from rolling_upgrade.config.encryption.passwords import Prompt
from rolling_upgrade.config.encryption.recipients import ssh_tag
from rolling_upgrade.engine.local_file import read_small

_AGE_KEY = re.compile(rb"^AGE-SECRET-KEY-1[0-9A-Z]+\s*$", re.MULTILINE)
_ATTEMPTS = 3


@dataclass(frozen=True)
class KeySource:
    """A file, or a text, that may hold private keys. It is an error when a `named` file does not exist."""

    title: str
    path: Path | None = None
    text: bytes = field(default=b"", repr=False)
    named: bool = True


@dataclass(frozen=True)
class LockedKey:
    """An SSH key with a passphrase. `tag` is the short hash of its public key, empty when unknown."""

    title: str
    tag: str
    text: bytes = field(repr=False)


@dataclass(frozen=True)
class Identities:
    """The loaded keys: `ready` ones as pyrage objects, `locked` ones with a passphrase; `notes` explain failures."""

    ready: tuple[Any, ...] = field(repr=False)
    locked: tuple[LockedKey, ...]
    notes: tuple[str, ...]


def load_identities(sources: Sequence[KeySource]) -> Identities:
    """Read the keys of every source; an unusable source becomes a note."""
    ready: list[Any] = []
    locked: list[LockedKey] = []
    notes: list[str] = []
    for source in sources:
        try:
            for key in _keys(source):
                if isinstance(key, LockedKey):
                    locked.append(key)
                else:
                    ready.append(key)
        except EncryptionError as error:
            notes.append(str(error.found))
    return Identities(tuple(ready), tuple(locked), tuple(notes))


def unlock(key: LockedKey, prompt: Prompt) -> Any:
    """Prompt for the passphrase and return the key as a pyrage object. Raises EncryptionError after three attempts."""
    from pyrage import ssh

    for _ in range(_ATTEMPTS):
        opened = _without_passphrase(key.text, prompt(f"Passphrase of {key.title}").encode())
        if opened is not None:
            return ssh.Identity.from_buffer(opened)
    raise EncryptionError(f"a wrong passphrase for {key.title}", "the passphrase of that key")


def may_open(key: LockedKey, stanzas: Sequence[Stanza]) -> bool:
    """Return whether a file may be encrypted for this key, so that prompting for its passphrase makes sense."""
    if key.tag:
        return any(stanza.tag == key.tag for stanza in stanzas)
    return any(stanza.kind == "ssh-rsa" for stanza in stanzas)


def _keys(source: KeySource) -> Iterator[Any]:
    from pyrage import IdentityError, ssh, x25519

    text = _text(source)
    if not text:
        return
    try:
        own = [x25519.Identity.from_str(line.strip().decode()) for line in _AGE_KEY.findall(text)]
        if own:
            yield from own
        elif _has_passphrase(text):
            yield LockedKey(source.title, _tag(source, text), text)
        else:
            yield ssh.Identity.from_buffer(text)
    except IdentityError as error:
        raise EncryptionError(f"{source.title} contains no key that age can use ({error})", "") from None


def _text(source: KeySource) -> bytes:
    if source.path is None:
        return source.text
    try:
        return read_small(source.path)
    except FileNotFoundError:
        if source.named:
            raise EncryptionError(f"{source.title} does not exist", "") from None
        return b""
    except OSError as error:
        raise EncryptionError(f"{source.title} cannot be read ({error.strerror})", "") from None


def _has_passphrase(text: bytes) -> bool:
    """Return whether an SSH key is encrypted: OpenSSH's format names a cipher, older PEM formats have a header line."""
    fields = _openssh_fields(text)
    if fields:
        return fields[0] != b"none"
    return b"ENCRYPTED" in text and b"PRIVATE KEY" in text


def _tag(source: KeySource, text: bytes) -> str:
    fields = _openssh_fields(text)
    if fields:
        return ssh_tag(fields[1])
    public = source.path.with_name(f"{source.path.name}.pub") if source.path else None
    try:
        return ssh_tag(base64.b64decode(read_small(public).split()[1])) if public else ""
    except (OSError, IndexError, ValueError):
        return ""


def _openssh_fields(text: bytes) -> tuple[bytes, bytes] | None:
    """Return the cipher and the public key of a key in OpenSSH's format. Source: OpenSSH's PROTOCOL.key."""
    match = re.search(rb"-----BEGIN OPENSSH PRIVATE KEY-----(.*?)-----END", text, re.DOTALL)
    try:
        blob = base64.b64decode(b"".join(match[1].split())) if match else b""
    except ValueError:
        return None
    rest = blob.removeprefix(b"openssh-key-v1\0")
    if rest == blob:
        return None
    cipher, rest = _string(rest)
    for _ in range(2):  # the key derivation function and its options
        _, rest = _string(rest)
    return cipher, _string(rest[4:])[0]


def _string(data: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(data[:4], "big")
    return data[4 : 4 + size], data[4 + size :]


def _without_passphrase(text: bytes, passphrase: bytes) -> bytes | None:
    """Return the key in OpenSSH's format, None for a wrong passphrase. Raises EncryptionError for another type."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    openssh = _openssh_fields(text) is not None
    load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    try:
        key = load(text, passphrase)
        # age uses ssh-ed25519 and ssh-rsa; both can be written in this format.
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
    except ValueError:
        return None
    except UnsupportedAlgorithm as error:
        raise EncryptionError(f"an SSH key of an unsupported type ({error})", "an ed25519 or RSA key") from None
