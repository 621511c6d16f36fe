"""Age files with real keys of every type, and the sources of private keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyrage import passphrase

from rolling_upgrade.config.encryption import Encryption, EncryptionError, NoTerminal, age, detect
from rolling_upgrade.config.encryption.keyring import Keyring, KeySource, no_prompt
from rolling_upgrade.config.encryption.recipients import Recipient
from tests.support.encryption_keys import TEXT, Prompts, age_key, keyring, public, ssh_key

PHRASE = "four words of ann"


@pytest.fixture
def ann(tmp_path: Path) -> Path:
    return ssh_key(tmp_path / "ann", "ann@laptop")


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    return ssh_key(tmp_path / "locked", "ann@desk", passphrase=PHRASE)


def encrypt_like(*recipients: Recipient, armored: bool = True) -> bytes:
    return age.encrypt(TEXT, recipients, armored=armored)


@pytest.mark.parametrize("armored", [True, False])
@pytest.mark.parametrize(
    ("kind", "options"), [("ed25519", ()), ("rsa", ("-b", "2048")), ("rsa", ("-b", "2048", "-m", "PEM"))]
)
def test_decrypt_with_an_ssh_key_returns_the_plaintext(
    tmp_path: Path, kind: str, options: tuple[str, ...], armored: bool
) -> None:
    key = ssh_key(tmp_path / "key", "ann", *options, kind=kind)
    written = encrypt_like(public(key), armored=armored)

    assert detect(written) is Encryption.AGE
    assert keyring(key).decrypt(written) == TEXT


@pytest.mark.parametrize("spoil", [lambda data: data.replace(b"\n", b"\r\n"), lambda data: b"\xef\xbb\xbf\n" + data])
def test_decrypt_armored_file_with_other_line_ends_returns_the_plaintext(ann: Path, spoil: object) -> None:
    assert callable(spoil)

    assert keyring(ann).decrypt(spoil(encrypt_like(public(ann)))) == TEXT


def test_decrypt_with_an_age_key_returns_the_plaintext(tmp_path: Path, ann: Path) -> None:
    ci = age_key(tmp_path / "ci.txt")

    assert keyring(tmp_path / "ci.txt").decrypt(encrypt_like(public(ann), ci)) == TEXT


def test_decrypt_with_a_key_in_a_variable_returns_the_plaintext(ann: Path) -> None:
    # CI systems often remove the final line end of a variable.
    source = KeySource("ROLLING_AGE_KEY", text=ann.read_bytes().strip() + b"\n")

    assert Keyring([source], (), {}, no_prompt).decrypt(encrypt_like(public(ann))) == TEXT


def test_decrypt_tries_the_second_key_after_the_first(tmp_path: Path, ann: Path) -> None:
    bob = ssh_key(tmp_path / "bob", "bob")

    assert keyring(bob, tmp_path / "nothing", ann).decrypt(encrypt_like(public(ann))) == TEXT


@pytest.mark.parametrize(
    ("kind", "options"), [("ed25519", ()), ("rsa", ("-b", "2048")), ("rsa", ("-b", "2048", "-m", "PEM"))]
)
def test_decrypt_with_a_locked_key_prompts_once(tmp_path: Path, kind: str, options: tuple[str, ...]) -> None:
    key = ssh_key(tmp_path / "key", "ann", *options, kind=kind, passphrase=PHRASE)
    prompts = Prompts("wrong", PHRASE)
    keys = keyring(key, prompt=prompts)

    assert keys.decrypt(encrypt_like(public(key))) == TEXT
    assert keys.decrypt(encrypt_like(public(key))) == TEXT
    assert prompts.questions == [f"Passphrase of {key}"] * 2


def test_decrypt_three_wrong_passphrases_raise(locked: Path) -> None:
    with pytest.raises(EncryptionError, match="a wrong passphrase for"):
        keyring(locked, prompt=Prompts("a", "b", "c")).decrypt(encrypt_like(public(locked)))


def test_decrypt_with_a_locked_key_without_a_terminal_names_the_variable(locked: Path) -> None:
    with pytest.raises(NoTerminal) as caught:
        keyring(locked).decrypt(encrypt_like(public(locked)))

    assert "has a passphrase" in caught.value.found
    assert "ROLLING_AGE_KEY" in caught.value.needed


def test_decrypt_does_not_prompt_for_a_key_that_cannot_match(ann: Path, locked: Path) -> None:
    prompts = Prompts()

    with pytest.raises(EncryptionError):
        keyring(locked, prompt=prompts).decrypt(encrypt_like(public(ann)))
    assert prompts.questions == []


def test_decrypt_without_a_key_names_the_recipients(tmp_path: Path, ann: Path) -> None:
    ci = age_key(tmp_path / "ci.txt")
    stranger = public(ssh_key(tmp_path / "bob", ""))
    named = tmp_path / "gone"

    with pytest.raises(EncryptionError) as caught:
        keyring(named, listed=(public(ann), ci)).decrypt(encrypt_like(public(ann), ci, stranger))

    found = caught.value.found
    assert "ann@laptop" in found
    assert f"an unlisted ssh-ed25519 key with the hash {stranger.tag}" in found
    assert "an age key" in found
    assert f"{named} does not exist" in found
    assert "rolling-upgrade secrets.rotate" in caught.value.needed


@pytest.mark.parametrize("text", ["garbage", "", "AGE-SECRET-KEY-1QQ"])
def test_decrypt_skips_an_unusable_key_source(tmp_path: Path, ann: Path, text: str) -> None:
    (tmp_path / "bad").write_text(text)

    with pytest.raises(EncryptionError, match="no matching private key"):
        keyring(tmp_path / "bad").decrypt(encrypt_like(public(ann)))
    assert keyring(tmp_path / "bad", ann).decrypt(encrypt_like(public(ann))) == TEXT


@pytest.mark.parametrize("armored", [True, False])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95, 0.99])
def test_decrypt_truncated_file_raises(ann: Path, armored: bool, kept: float) -> None:
    written = encrypt_like(public(ann), armored=armored)

    with pytest.raises(EncryptionError, match=r"damaged|truncated|no matching private key"):
        keyring(ann).decrypt(written[: max(40, int(len(written) * kept))])


def test_decrypt_changed_byte_raises(ann: Path) -> None:
    written = bytearray(encrypt_like(public(ann), armored=False))
    written[-5] ^= 1

    with pytest.raises(EncryptionError, match="damaged or truncated"):
        keyring(ann).decrypt(bytes(written))


def test_decrypt_file_encrypted_with_a_passphrase_raises(ann: Path) -> None:
    written = passphrase.encrypt(TEXT, "secret")

    with pytest.raises(EncryptionError, match="anyone with its passphrase"):
        keyring(ann).decrypt(written)


def test_encrypt_for_an_unsupported_key_raises() -> None:
    with pytest.raises(EncryptionError, match="the key of ann"):
        age.encrypt(TEXT, [Recipient("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA", "ann")], armored=True)


def test_differences_lists_missing_and_unlisted_recipients(tmp_path: Path, ann: Path) -> None:
    bob, ci = public(ssh_key(tmp_path / "bob", "bob")), age_key(tmp_path / "ci.txt")
    stanzas = age.stanzas(encrypt_like(public(ann), ci))

    assert age.differences(stanzas, (public(ann), ci)) == ()
    assert age.differences(stanzas, (bob, ci)) == (
        "bob is listed, but the file is not encrypted for that key",
        f"the file is encrypted for an SSH key with the hash {public(ann).tag}, which is not listed",
    )
    assert age.differences(stanzas, (public(ann),)) == ("the file is encrypted for 1 age keys, but 0 are listed",)


def test_repr_of_key_objects_contains_no_key(tmp_path: Path, locked: Path) -> None:
    source = KeySource("ROLLING_AGE_KEY", text=b"AGE-SECRET-KEY-1ABC")

    assert "AGE-SECRET" not in repr(source)
    assert "OPENSSH" not in repr(keyring(locked).__dict__)
