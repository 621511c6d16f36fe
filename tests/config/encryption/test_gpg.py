"""Files of a real gpg with a temporary keyring."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rolling_upgrade.config.encryption import Encryption, EncryptionError, detect, gpg, is_armored
from tests.support.encryption_keys import TEXT
from tests.support.pgp import Pgp


@pytest.mark.parametrize("armored", [True, False])
def test_encrypt_then_decrypt_returns_the_text(pgp: Pgp, armored: bool) -> None:
    written = gpg.encrypt(TEXT, pgp.fingerprints(), armored=armored)

    assert (detect(written), is_armored(written)) == (Encryption.GPG, armored)
    assert gpg.decrypt(written) == TEXT


def test_recipients_are_the_keys_in_the_file(pgp: Pgp) -> None:
    stranger = pgp.stranger("Bob <bob@example.org>")
    written = gpg.encrypt(TEXT, [*pgp.fingerprints()[:1], stranger], armored=True)

    found = gpg.recipients(written)

    assert len(found) == 2
    assert found[1] in gpg.encryption_keys(stranger)
    again = gpg.encrypt(TEXT, [f"{key}!" for key in found], armored=True)
    assert gpg.recipients(again) == found


def test_decrypt_without_the_secret_key_names_the_recipient(pgp: Pgp) -> None:
    stranger = pgp.stranger("Bob <bob@example.org>")
    written = gpg.encrypt(TEXT, [stranger], armored=True)

    with pytest.raises(EncryptionError) as caught:
        gpg.decrypt(written)

    assert gpg.recipients(written)[0] in caught.value.found
    assert "secret key" in caught.value.needed


@pytest.mark.parametrize("length", [100, 200, 290, 330])
def test_decrypt_truncated_file_raises(pgp: Pgp, length: int) -> None:
    written = gpg.encrypt(TEXT, pgp.fingerprints(), armored=False)
    assert len(written) > length

    with pytest.raises(EncryptionError):
        gpg.decrypt(written[:length])


def test_decrypt_changed_byte_raises(pgp: Pgp) -> None:
    written = bytearray(gpg.encrypt(TEXT, pgp.fingerprints(), armored=False))
    written[-10] ^= 1

    with pytest.raises(EncryptionError):
        gpg.decrypt(bytes(written))


def test_encrypt_for_a_key_outside_the_keyring_raises(pgp: Pgp) -> None:
    with pytest.raises(EncryptionError, match="cannot encrypt") as caught:
        gpg.encrypt(TEXT, ["A" * 40], armored=True)

    assert "gpg --import" in caught.value.needed


def test_decrypt_with_a_locked_key_prompts_through_the_agent(pgp: Pgp, tmp_path: Path) -> None:
    pinentry = tmp_path / "pinentry"
    # The answers of a pinentry to its agent. Source: GnuPG's pinentry manual, "Pinentry's Assuan Protocol".
    pinentry.write_text(
        "#!/bin/sh\necho OK\nwhile read -r line; do\n"
        'case "$line" in GETPIN*) echo "D four words"; echo OK;; BYE*) echo OK; exit;; *) echo OK;; esac\ndone\n'
    )
    pinentry.chmod(0o700)
    locked = pgp.key("Carl <carl@example.org>", passphrase="four words")
    (pgp.home / "gpg-agent.conf").write_text(f"pinentry-program {pinentry}\n")
    subprocess.run(["gpgconf", "--homedir", str(pgp.home), "--kill", "all"], check=True, timeout=30)

    assert gpg.decrypt(gpg.encrypt(TEXT, [locked], armored=True)) == TEXT
    pinentry.write_text("#!/bin/sh\necho OK\nwhile read -r line; do echo 'ERR 83886179 canceled'; done\n")
    subprocess.run(["gpgconf", "--homedir", str(pgp.home), "--kill", "all"], check=True, timeout=30)
    with pytest.raises(EncryptionError):
        gpg.decrypt(gpg.encrypt(TEXT, [locked], armored=True))


def test_decrypt_without_gpg_names_the_package(pgp: Pgp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = gpg.encrypt(TEXT, pgp.fingerprints(), armored=True)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(EncryptionError, match="gpg is not installed"):
        gpg.decrypt(written)
