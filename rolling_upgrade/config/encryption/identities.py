"""The private keys that may open an age file: age's own and SSH's, with and without a passphrase. It writes nothing."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fabfile.sealing.age import Stanza
from fabfile.sealing.forms import SealError
from fabfile.sealing.passwords import Ask
from fabfile.sealing.recipients import ssh_tag

_AGE_KEY = re.compile(rb"^AGE-SECRET-KEY-1[0-9A-Z]+\s*$", re.MULTILINE)
_ATTEMPTS = 3


@dataclass(frozen=True)
class KeySource:
    """A place that may hold a private key: a file, or the text itself. One that was named has to be there."""

    title: str
    path: Path | None = None
    text: bytes = field(default=b"", repr=False)
    named: bool = True


@dataclass(frozen=True)
class Locked:
    """An SSH key with a passphrase; `tag` is the short hash of its public half, '' where that is not known."""

    title: str
    tag: str
    text: bytes = field(repr=False)


@dataclass(frozen=True)
class Found:
    """What the places hold: keys ready for pyrage, keys with a passphrase, and what was wrong with a place."""

    ready: tuple[Any, ...] = field(repr=False)
    locked: tuple[Locked, ...]
    notes: tuple[str, ...]


def find(sources: Sequence[KeySource]) -> Found:
    """Read every place; what cannot be used is noted and does not keep the others from being used."""
    ready: list[Any] = []
    locked: list[Locked] = []
    notes: list[str] = []
    for source in sources:
        try:
            for key in _keys(source):
                if isinstance(key, Locked):
                    locked.append(key)
                else:
                    ready.append(key)
        except SealError as error:
            notes.append(str(error.found))
    return Found(tuple(ready), tuple(locked), tuple(notes))


def unlock(key: Locked, asking: Ask) -> Any:
    """The key as pyrage has it, after a person typed its passphrase. Raises SealError."""
    from pyrage import ssh

    for _ in range(_ATTEMPTS):
        opened = _without_passphrase(key.text, asking(f"Passphrase of {key.title}").encode())
        if opened is not None:
            return ssh.Identity.from_buffer(opened)
    raise SealError(f"a passphrase that does not open {key.title}", "the passphrase of that key")


def may_open(key: Locked, stanzas: Sequence[Stanza]) -> bool:
    """Whether a file can be for this key: its passphrase is asked for only then."""
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
            yield Locked(source.title, _tag(source, text), text)
        else:
            yield ssh.Identity.from_buffer(text)
    except IdentityError as error:
        raise SealError(f"{source.title} holds no key that age can use ({error})", "") from None


def _text(source: KeySource) -> bytes:
    if source.path is None:
        return source.text
    try:
        return source.path.read_bytes()
    except FileNotFoundError:
        if source.named:
            raise SealError(f"{source.title} does not exist", "") from None
        return b""
    except OSError as error:
        raise SealError(f"{source.title} cannot be read ({error.strerror})", "") from None


def _has_passphrase(text: bytes) -> bool:
    """Whether an SSH key is encrypted: OpenSSH's form names its cipher first, the older PEM forms say so in a line."""
    fields = _openssh_fields(text)
    if fields:
        return fields[0] != b"none"
    return b"ENCRYPTED" in text and b"PRIVATE KEY" in text


def _tag(source: KeySource, text: bytes) -> str:
    fields = _openssh_fields(text)
    if fields:
        return ssh_tag(fields[1])
    beside = source.path.with_name(f"{source.path.name}.pub") if source.path else None
    try:
        return ssh_tag(base64.b64decode(beside.read_bytes().split()[1])) if beside else ""
    except (OSError, IndexError, ValueError):
        return ""


def _openssh_fields(text: bytes) -> tuple[bytes, bytes] | None:
    """The cipher and the public half of a key in OpenSSH's form. Source: OpenSSH's PROTOCOL.key."""
    match = re.search(rb"-----BEGIN OPENSSH PRIVATE KEY-----(.*?)-----END", text, re.DOTALL)
    try:
        blob = base64.b64decode(b"".join(match[1].split())) if match else b""
    except ValueError:
        return None
    rest = blob.removeprefix(b"openssh-key-v1\0")
    if rest == blob:
        return None
    cipher, rest = _string(rest)
    for _ in ("kdf", "its options"):
        _, rest = _string(rest)
    return cipher, _string(rest[4:])[0]


def _string(data: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(data[:4], "big")
    return data[4 : 4 + size], data[4 + size :]


def _without_passphrase(text: bytes, passphrase: bytes) -> bytes | None:
    """The key in OpenSSH's form, in memory; None for a wrong passphrase. Raises SealError for an unknown kind."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as forms

    load = forms.load_ssh_private_key if _openssh_fields(text) else forms.load_pem_private_key
    try:
        key = load(text, passphrase)
        # age takes ssh-ed25519 and ssh-rsa; every kind that can stand in such a file has this form.
        return key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, forms.NoEncryption())
    except ValueError:
        return None
    except UnsupportedAlgorithm as error:
        raise SealError(f"an SSH key of a kind that is not supported ({error})", "an ed25519 or RSA key") from None
