"""The private keys and passwords of this machine: load them, prompt for each passphrase at most once, decrypt files.

pyrage and cryptography are imported when a file is opened.
"""

from __future__ import annotations

import base64
import getpass
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rolling_upgrade.config.encryption import (
    Encryption,
    EncryptionError,
    NoTerminal,
    age,
    detect,
    gpg,
    vault,
)
from rolling_upgrade.config.encryption.age import Stanza
from rolling_upgrade.config.encryption.recipients import Recipient, ssh_tag
from rolling_upgrade.engine.local_file import read_small
from rolling_upgrade.errors import PROGRAM

PASSWORD_FILE = "ANSIBLE_VAULT_PASSWORD_FILE"  # noqa: S105  (the name of a variable)
_PROGRAM_SECONDS = 60.0

#: Prompts for one secret line. Raises NoTerminal without a terminal.
Prompt = Callable[[str], str]


def prompt_hidden(question: str) -> str:
    """Prompt on the terminal without echo. Raises NoTerminal without a terminal."""
    if not sys.stdin.isatty():
        return no_prompt(question)
    try:
        return getpass.getpass(f"{question}: ")
    except EOFError:
        return ""


def no_prompt(question: str) -> str:
    """Refuse to prompt. Raises NoTerminal."""
    raise NoTerminal(f"no terminal to prompt for {question!r}", "a terminal")


def prompt_twice(question: str, prompt: Prompt) -> str:
    """Prompt twice for a new secret. Raises EncryptionError when the entries differ or are empty."""
    first = prompt(question)
    if not first or prompt(f"{question}, again") != first:
        raise EncryptionError("two different entries, or an empty one", "the same password twice")
    return first


def vault_password(environ: Mapping[str, str], prompt: Prompt, *, new: bool = False) -> bytes:
    """Return the password of an ansible-vault file. Raises EncryptionError.

    Like ansible-vault, run an executable password file and use its output; read any other file.
    Source: Ansible's documentation, "Storing passwords in third-party tools with vault password client scripts".
    """
    named = environ.get(PASSWORD_FILE, "")
    if named:
        return read_password(Path(os.path.expanduser(named)), PASSWORD_FILE)  # noqa: PTH111 (keeps an unknown ~user, raises nothing)
    question = "New password of the ansible-vault file" if new else "Password of the ansible-vault file"
    try:
        return (prompt_twice(question, prompt) if new else prompt(question)).encode()
    except NoTerminal:
        needed = f"{PASSWORD_FILE}=FILE, or a terminal to prompt on"
        raise NoTerminal("an ansible-vault file, but no password for it", needed) from None


def read_password(path: Path, why: str) -> bytes:
    """Return the password in a file, or the output of an executable file. Raises EncryptionError."""
    try:
        password = (
            _program_output(path, why) if os.access(path, os.X_OK) and path.is_file() else path.read_bytes().strip()
        )
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise EncryptionError(
            f"{path} ({why}): {reason}", "a file with the password, or a program that prints it"
        ) from None
    if not password:
        raise EncryptionError(f"{path} ({why}) without a password", "a file with the password")
    return password


def _program_output(path: Path, why: str) -> bytes:
    try:
        done = subprocess.run([str(path.absolute())], stdout=subprocess.PIPE, timeout=_PROGRAM_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise EncryptionError(
            f"{path} ({why}), which printed no password within a minute", "a program that prints the password"
        ) from None
    if done.returncode:
        found = f"{path} ({why}), which failed with exit code {done.returncode}"
        raise EncryptionError(found, "a program that prints the password")
    return done.stdout.strip(b"\r\n")


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


class Keyring:
    """The private keys and passwords of this machine, loaded when the first file needs them."""

    def __init__(
        self, sources: Sequence[KeySource], listed: Sequence[Recipient], environ: Mapping[str, str], prompt: Prompt
    ) -> None:
        self._sources, self._listed = tuple(sources), tuple(listed)
        self._environ, self._prompt = environ, prompt
        self._found: Identities | None = None
        self._unlocked: dict[str, Any] = {}
        self._password: bytes | None = None

    def decrypt(self, data: bytes) -> bytes:
        """Decrypt a file; plaintext is returned as it is. Raises EncryptionError."""
        encryption = detect(data)
        if encryption is Encryption.AGE:
            return self._decrypt_age(data)
        if encryption is Encryption.VAULT:
            return vault.decrypt(data, self.password())
        return gpg.decrypt(data) if encryption is Encryption.GPG else data

    def password(self, *, new: bool = False) -> bytes:
        """Return the password of ansible-vault files; prompt at most once. Raises EncryptionError."""
        if self._password is None:
            self._password = vault_password(self._environ, self._prompt, new=new)
        return self._password

    def with_password(self, password: bytes) -> Keyring:
        """Return a keyring with the same keys and another ansible-vault password."""
        other = Keyring(self._sources, self._listed, self._environ, self._prompt)
        other._found, other._unlocked, other._password = self._found, self._unlocked, password
        return other

    def _decrypt_age(self, data: bytes) -> bytes:
        stanzas = age.stanzas(data)
        if self._found is None:
            self._found = load_identities(self._sources)
        opened = age.decrypt(data, (*self._found.ready, *self._unlocked.values()))
        fitting = [key for key in self._found.locked if may_open(key, stanzas)]
        for key in fitting if opened is None else ():
            if key.title not in self._unlocked:
                self._unlocked[key.title] = self._unlock(key)
                opened = age.decrypt(data, tuple(self._unlocked.values()))
            if opened is not None:
                break
        if opened is None:
            raise EncryptionError(self._refusal(age.describe_recipients(stanzas, self._listed)), _MISSING_KEY)
        return opened

    def _unlock(self, key: LockedKey) -> Any:
        try:
            return unlock(key, self._prompt)
        except NoTerminal:
            found = f"an age file encrypted for {key.title}, which has a passphrase, but no terminal to prompt on"
            raise NoTerminal(found, "a terminal, or a key without a passphrase in ROLLING_AGE_KEY") from None

    def _refusal(self, recipients: str) -> str:
        notes = self._found.notes if self._found else ()
        tried = ", ".join(source.title for source in self._sources)
        problems = "".join(f"; {note}" for note in notes)
        return f"an age file encrypted for {recipients}, but no matching private key (tried {tried}{problems})"


_MISSING_KEY = (
    "the private key of one recipient, set by age_identity in hosts.yaml, ROLLING_AGE_KEY_FILE or ROLLING_AGE_KEY; "
    f"or a recipient adds yours: {PROGRAM} secrets.recipients --env ENV --add KEY, "
    f"then {PROGRAM} secrets.rotate --env ENV"
)
