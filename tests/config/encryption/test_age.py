"""Files in age's form, with real keys of every kind, and the places that keys come from."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyrage import passphrase

from fabfile.sealing import age
from fabfile.sealing.forms import Form, NoTerminal, SealError, recognise
from fabfile.sealing.identities import KeySource
from fabfile.sealing.keyring import Keyring
from fabfile.sealing.passwords import never
from fabfile.sealing.recipients import Recipient
from tests.sealing.keys import TEXT, Asked, age_key, keyring, public, ssh_key

PHRASE = "four words of ann"


@pytest.fixture
def ann(tmp_path: Path) -> Path:
    return ssh_key(tmp_path / "ann", "ann@laptop")


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    return ssh_key(tmp_path / "locked", "ann@desk", passphrase=PHRASE)


def sealed(*recipients: Recipient, armored: bool = True) -> bytes:
    return age.encrypt(TEXT, recipients, armored=armored)


@pytest.mark.parametrize("armored", [True, False])
@pytest.mark.parametrize(
    ("kind", "options"), [("ed25519", ()), ("rsa", ("-b", "2048")), ("rsa", ("-b", "2048", "-m", "PEM"))]
)
def test_open_ssh_key_opens_what_is_for_it(tmp_path: Path, kind: str, options: tuple[str, ...], armored: bool) -> None:
    key = ssh_key(tmp_path / "key", "ann", *options, kind=kind)
    written = sealed(public(key), armored=armored)

    assert recognise(written) is Form.AGE
    assert keyring(key).open(written) == TEXT


@pytest.mark.parametrize("spoil", [lambda data: data.replace(b"\n", b"\r\n"), lambda data: b"\xef\xbb\xbf\n" + data])
def test_open_armored_file_that_an_editor_touched(ann: Path, spoil: object) -> None:
    assert callable(spoil)

    assert keyring(ann).open(spoil(sealed(public(ann)))) == TEXT


def test_open_key_of_ages_own_opens_what_is_for_it(tmp_path: Path, ann: Path) -> None:
    ci = age_key(tmp_path / "ci.txt")

    assert keyring(tmp_path / "ci.txt").open(sealed(public(ann), ci)) == TEXT


def test_open_key_as_a_text_opens_what_is_for_it(ann: Path) -> None:
    # A variable of a CI system often comes without its last line end.
    source = KeySource("ROLLING_AGE_KEY", text=ann.read_bytes().strip() + b"\n")

    assert Keyring([source], (), {}, never).open(sealed(public(ann))) == TEXT


def test_open_first_key_does_not_fit_and_the_second_does(tmp_path: Path, ann: Path) -> None:
    bob = ssh_key(tmp_path / "bob", "bob")

    assert keyring(bob, tmp_path / "nothing", ann).open(sealed(public(ann))) == TEXT


@pytest.mark.parametrize(
    ("kind", "options"), [("ed25519", ()), ("rsa", ("-b", "2048")), ("rsa", ("-b", "2048", "-m", "PEM"))]
)
def test_open_key_with_a_passphrase_asks_once(tmp_path: Path, kind: str, options: tuple[str, ...]) -> None:
    key = ssh_key(tmp_path / "key", "ann", *options, kind=kind, passphrase=PHRASE)
    asked = Asked("wrong", PHRASE)
    keys = keyring(key, asking=asked)

    assert keys.open(sealed(public(key))) == TEXT
    assert keys.open(sealed(public(key))) == TEXT
    assert asked.questions == [f"Passphrase of {key}"] * 2


def test_open_wrong_passphrase_three_times_is_refused(locked: Path) -> None:
    with pytest.raises(SealError, match="a passphrase that does not open"):
        keyring(locked, asking=Asked("a", "b", "c")).open(sealed(public(locked)))


def test_open_passphrase_without_a_terminal_says_what_ci_needs(locked: Path) -> None:
    with pytest.raises(NoTerminal) as caught:
        keyring(locked).open(sealed(public(locked)))

    assert "has a passphrase" in caught.value.found
    assert "ROLLING_AGE_KEY" in caught.value.needed


def test_open_passphrase_of_a_key_that_cannot_fit_is_not_asked(ann: Path, locked: Path) -> None:
    asked = Asked()

    with pytest.raises(SealError):
        keyring(locked, asking=asked).open(sealed(public(ann)))
    assert asked.questions == []


def test_open_without_a_key_says_for_whom_the_file_is(tmp_path: Path, ann: Path) -> None:
    ci = age_key(tmp_path / "ci.txt")
    stranger = public(ssh_key(tmp_path / "bob", ""))
    named = tmp_path / "gone"

    with pytest.raises(SealError) as caught:
        keyring(named, listed=(public(ann), ci)).open(sealed(public(ann), ci, stranger))

    said = caught.value.found
    assert "ann@laptop" in said
    assert f"an unlisted ssh-ed25519 key with the hash {stranger.tag}" in said
    assert "an age key" in said
    assert f"{named} does not exist" in said
    assert "inv secrets.rotate" in caught.value.needed


@pytest.mark.parametrize("text", ["garbage", "", "AGE-SECRET-KEY-1QQ"])
def test_open_place_without_a_usable_key_is_named(tmp_path: Path, ann: Path, text: str) -> None:
    (tmp_path / "bad").write_text(text)

    with pytest.raises(SealError, match="no key of theirs here"):
        keyring(tmp_path / "bad").open(sealed(public(ann)))
    assert keyring(tmp_path / "bad", ann).open(sealed(public(ann))) == TEXT


@pytest.mark.parametrize("armored", [True, False])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95, 0.99])
def test_open_file_that_is_cut_off_is_refused(ann: Path, armored: bool, kept: float) -> None:
    written = sealed(public(ann), armored=armored)

    with pytest.raises(SealError, match=r"damaged|cut off|no key of theirs"):
        keyring(ann).open(written[: max(40, int(len(written) * kept))])


def test_open_changed_byte_is_refused(ann: Path) -> None:
    written = bytearray(sealed(public(ann), armored=False))
    written[-5] ^= 1

    with pytest.raises(SealError, match="damaged or cut off"):
        keyring(ann).open(bytes(written))


def test_open_file_with_a_passphrase_of_its_own_is_refused(ann: Path) -> None:
    written = passphrase.encrypt(TEXT, "secret")

    with pytest.raises(SealError, match="whoever knows its passphrase"):
        keyring(ann).open(written)


def test_encrypt_key_that_age_cannot_use_is_refused() -> None:
    with pytest.raises(SealError, match="the key of ann"):
        age.encrypt(TEXT, [Recipient("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA", "ann")], armored=True)


def test_differences_are_found_as_far_as_the_file_shows_them(tmp_path: Path, ann: Path) -> None:
    bob, ci = public(ssh_key(tmp_path / "bob", "bob")), age_key(tmp_path / "ci.txt")
    stanzas = age.stanzas(sealed(public(ann), ci))

    assert age.differences(stanzas, (public(ann), ci)) == ()
    assert age.differences(stanzas, (bob, ci)) == (
        "bob is listed, and the file is not for that key",
        f"the file is for an SSH key with the hash {public(ann).tag}, which is not listed",
    )
    assert age.differences(stanzas, (public(ann),)) == ("the file is for 1 age keys, and 0 are listed",)


def test_repr_of_what_holds_a_key_shows_none_of_it(tmp_path: Path, locked: Path) -> None:
    source = KeySource("ROLLING_AGE_KEY", text=b"AGE-SECRET-KEY-1ABC")

    assert "AGE-SECRET" not in repr(source)
    assert "OPENSSH" not in repr(keyring(locked).__dict__)
