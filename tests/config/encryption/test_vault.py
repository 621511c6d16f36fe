"""The format of ansible-vault: files by that program are decrypted, and written files have its format."""

from __future__ import annotations

import pytest

from rolling_upgrade.config.encryption import EncryptionError, vault
from tests.support.encryption_keys import TEXT

PASSWORD = b"correct horse"

#: Written by ansible-vault of ansible-core, with the password above.
PLAIN = """\
$ANSIBLE_VAULT;1.1;AES256
31303164393631343735633332333031383730313565363232373837373931626430386261366133
3337323136613532613533376430353562303161663563640a323930303462626365396134343330
35306436396261333463386632376431346466636164666239663631303033376463666466326237
3737343231313830390a616134303939643239353938376461373462396439653033313136376631
63373534396665316230333062343037333665333639346237303138303239363261346236323130
30633733316366656565323061643636633830343431636561626665663638613838613233396564
343533396437623835373834613630343737
"""
LABELLED = """\
$ANSIBLE_VAULT;1.2;AES256;production
35653933303862623761623564363434323364666665326461636534666562393964636462616364
3638636565366438626234643331653837356532303064620a323532383765616631323535343739
63303733653433646530623236636132313966333634396463633530623663613238326438636361
3337303436643163610a623531643661353962383363306663356335633632633336663165656232
37363836303934376236636131363961333366613638613238383361393864356564353865646462
34656534393663343539356437636433626339663239326361353333343862316536316237363562
303166313731363534633866656132373135
"""


@pytest.mark.parametrize(("written", "label"), [(PLAIN, ""), (LABELLED, "production")])
def test_decrypt_file_of_ansible_vault_returns_the_text(written: str, label: str) -> None:
    assert vault.decrypt(written.encode(), PASSWORD) == TEXT
    assert vault.label(written.encode()) == label


def test_decrypt_accepts_windows_line_ends_and_a_byte_order_mark() -> None:
    assert vault.decrypt(b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode(), PASSWORD) == TEXT


@pytest.mark.parametrize("text", [b"", b"A=1\n", b"x" * 16, "JWT=\u00e4\u4e2d\n".encode() * 100])
@pytest.mark.parametrize("label", ["", "staging"])
def test_encrypt_then_decrypt_returns_the_text(text: bytes, label: str) -> None:
    written = vault.encrypt(text, PASSWORD, label=label)

    header, *lines = written.decode().splitlines()
    assert header == ("$ANSIBLE_VAULT;1.2;AES256;staging" if label else "$ANSIBLE_VAULT;1.1;AES256")
    assert all(len(line) == 80 for line in lines[:-1])
    assert len(lines[-1]) <= 80
    assert vault.decrypt(written, PASSWORD) == text


def test_encrypt_twice_returns_different_files() -> None:
    assert vault.encrypt(TEXT, PASSWORD) != vault.encrypt(TEXT, PASSWORD)


def test_decrypt_wrong_password_raises() -> None:
    with pytest.raises(EncryptionError, match="the password does not decrypt"):
        vault.decrypt(PLAIN.encode(), b"another")


def test_decrypt_changed_digit_raises() -> None:
    lines = PLAIN.splitlines()
    digit = "0" if lines[-1][9] != "0" else "1"
    changed = "\n".join([*lines[:-1], f"{lines[-1][:9]}{digit}{lines[-1][10:]}"])

    with pytest.raises(EncryptionError):
        vault.decrypt(changed.encode(), PASSWORD)


@pytest.mark.parametrize("length", [0, 30, 100, 200, len(PLAIN) - 90, len(PLAIN) - 3])
def test_decrypt_truncated_file_raises(length: int) -> None:
    with pytest.raises(EncryptionError):
        vault.decrypt(PLAIN.encode()[:length], PASSWORD)


@pytest.mark.parametrize("header", ["$ANSIBLE_VAULT;1.0;AES", "$ANSIBLE_VAULT;2.0;AES256", "$ANSIBLE_VAULT;"])
def test_decrypt_unsupported_version_raises(header: str) -> None:
    with pytest.raises(EncryptionError, match="an unsupported version"):
        vault.decrypt(PLAIN.replace("$ANSIBLE_VAULT;1.1;AES256", header).encode(), PASSWORD)
