"""Decrypt files with the keys and passwords of this machine; prompt for each passphrase at most once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rolling_upgrade.config.encryption import (
    Encryption,
    EncryptionError,
    NoTerminal,
    age,
    detect,
    gpg,
    identities,
    vault,
)
from rolling_upgrade.config.encryption.identities import Identities, KeySource
from rolling_upgrade.config.encryption.passwords import Prompt, vault_password
from rolling_upgrade.config.encryption.recipients import Recipient
from rolling_upgrade.errors import PROGRAM


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
            self._found = identities.load_identities(self._sources)
        opened = age.decrypt(data, (*self._found.ready, *self._unlocked.values()))
        fitting = [key for key in self._found.locked if identities.may_open(key, stanzas)]
        for key in fitting if opened is None else ():
            if key.title not in self._unlocked:
                self._unlocked[key.title] = self._unlock(key)
                opened = age.decrypt(data, tuple(self._unlocked.values()))
            if opened is not None:
                break
        if opened is None:
            raise EncryptionError(self._refusal(age.describe_recipients(stanzas, self._listed)), _MISSING_KEY)
        return opened

    def _unlock(self, key: identities.LockedKey) -> Any:
        try:
            return identities.unlock(key, self._prompt)
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
