"""The keys and passwords of one task: whatever form a file has, it opens here, and nothing is asked for twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fabfile.sealing import age, gpg, identities, vault
from fabfile.sealing.forms import Form, NoTerminal, SealError, recognise
from fabfile.sealing.identities import Found, KeySource
from fabfile.sealing.passwords import Ask, vault_password
from fabfile.sealing.recipients import Recipient


class Keyring:
    """What can open files on this machine; keys are read and people asked when a file needs it."""

    def __init__(
        self, sources: Sequence[KeySource], listed: Sequence[Recipient], environ: Mapping[str, str], asking: Ask
    ) -> None:
        self._sources, self._listed = tuple(sources), tuple(listed)
        self._environ, self._asking = environ, asking
        self._found: Found | None = None
        self._unlocked: dict[str, Any] = {}
        self._password: bytes | None = None

    def open(self, data: bytes) -> bytes:
        """The plaintext of a file; one that is not encrypted is its own. Raises SealError."""
        form = recognise(data)
        if form is Form.AGE:
            return self._open_age(data)
        if form is Form.VAULT:
            return vault.decrypt(data, self.password())
        return gpg.decrypt(data) if form is Form.GPG else data

    def password(self, *, new: bool = False) -> bytes:
        """The password of ansible-vault files, asked for once. Raises SealError."""
        if self._password is None:
            self._password = vault_password(self._environ, self._asking, new=new)
        return self._password

    def with_password(self, password: bytes) -> Keyring:
        """The same keys with another password."""
        other = Keyring(self._sources, self._listed, self._environ, self._asking)
        other._found, other._unlocked, other._password = self._found, self._unlocked, password
        return other

    def _open_age(self, data: bytes) -> bytes:
        stanzas = age.stanzas(data)
        if self._found is None:
            self._found = identities.find(self._sources)
        opened = age.decrypt(data, (*self._found.ready, *self._unlocked.values()))
        fitting = [key for key in self._found.locked if identities.may_open(key, stanzas)]
        for key in fitting if opened is None else ():
            if key.title not in self._unlocked:
                self._unlocked[key.title] = self._unlock(key)
                opened = age.decrypt(data, tuple(self._unlocked.values()))
            if opened is not None:
                break
        if opened is None:
            raise SealError(self._refusal(age.described(stanzas, self._listed)), _MISSING_KEY)
        return opened

    def _unlock(self, key: identities.Locked) -> Any:
        try:
            return identities.unlock(key, self._asking)
        except NoTerminal:
            found = f"an age file for {key.title}, which has a passphrase, and no terminal to ask for it"
            raise NoTerminal(found, "a terminal, or a key without a passphrase in ROLLING_AGE_KEY") from None

    def _refusal(self, described: str) -> str:
        notes = self._found.notes if self._found else ()
        looked = ", ".join(source.title for source in self._sources)
        said = f"; {'; '.join(notes)}" if notes else ""
        return f"an age file for {described}, and no key of theirs here (looked at {looked}{said})"


_MISSING_KEY = (
    "the private key of one of them: name it with age_identity in hosts.yaml, ROLLING_AGE_KEY_FILE or ROLLING_AGE_KEY; "
    "or let one of them add yours: inv secrets.recipients --env ENV --add KEY, then inv secrets.rotate --env ENV"
)
