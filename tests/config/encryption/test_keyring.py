"""Random texts and random damage in the formats that need no external program."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st
from pyrage import x25519

from rolling_upgrade.config.encryption import EncryptionError, age, vault
from rolling_upgrade.config.encryption.keyring import Keyring, KeySource, no_prompt
from rolling_upgrade.config.encryption.recipients import Recipient
from tests.support.encryption_keys import TEXT


@cache
def identity() -> x25519.Identity:
    return x25519.Identity.generate()


def keys() -> Keyring:
    source = KeySource("ROLLING_AGE_KEY", text=str(identity()).encode())
    return Keyring([source], (), {}, no_prompt).with_password(b"correct horse")


def written(text: bytes, form: str) -> bytes:
    if form == "vault":
        return vault.encrypt(text, b"correct horse")
    return age.encrypt(text, [Recipient(str(identity().to_public()))], armored=form == "armored")


#: The offset after the header that detection reads.
_HEADER = len(b"-----BEGIN AGE ENCRYPTED FILE-----")
FORMS = st.sampled_from(["vault", "armored", "binary"])


@settings(max_examples=200)
@given(st.binary(max_size=2000), FORMS)
def test_decrypt_returns_any_encrypted_text_unchanged(text: bytes, form: str) -> None:
    assert keys().decrypt(written(text, form)) == text


@settings(max_examples=500)
@given(FORMS, st.integers(0, 10_000), st.integers(0, 40), st.binary(max_size=20))
def test_decrypt_damaged_file_raises_or_returns_the_text(form: str, at: int, gone: int, new: bytes) -> None:
    whole = written(TEXT, form)
    at = _HEADER + at % (len(whole) - _HEADER)
    damaged = whole[:at] + new + whole[at + gone :]

    # Harmless: white space was added or removed, or only the final line end was cut.
    with suppress(EncryptionError):
        assert keys().decrypt(damaged) == TEXT
