"""Detect the format of encrypted files by their first bytes."""

from __future__ import annotations

import pytest

from rolling_upgrade.config.encryption import Encryption, detect


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (b"age-encryption.org/v1\n-> X25519 a\n", Encryption.AGE),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n", Encryption.AGE),
        (b"\xef\xbb\xbf\r\n-----BEGIN AGE ENCRYPTED FILE-----\r\n", Encryption.AGE),
        (b"$ANSIBLE_VAULT;1.1;AES256\n3132\n", Encryption.VAULT),
        (b"$ANSIBLE_VAULT;1.2;AES256;production\n3132\n", Encryption.VAULT),
        (b"-----BEGIN PGP MESSAGE-----\n\nhQ\n", Encryption.GPG),
        (b"\x85\x01\x0c\x03\x91\x9b\x6b\xe6", Encryption.GPG),
        (b"\x8c\x0d\x04\x09\x03\x02\x94\x67", Encryption.GPG),
        (b"\xc1\xc0\x4c\x03\x91\x9b\x6b\xe6", Encryption.GPG),
        (b"\xc3\x0d\x04\x09\x03\x02\x94\x67", Encryption.GPG),
    ],
)
def test_detect_returns_the_format_of_the_header(data: bytes, form: Encryption) -> None:
    assert detect(data) is form


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"APP_NAME=memoryark\n",
        b"# $ANSIBLE_VAULT;1.1;AES256\nA=1\n",
        b"\xef\xbb\xbfA=1\n",
        "Äpfel=1\n".encode(),
        "éclair=1\n".encode(),
        "Áé=3\n".encode(),
        b"\x85",
        b"\xff\xfeA\x00=\x001\x00",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n",
    ],
)
def test_detect_other_file_returns_none(data: bytes) -> None:
    assert detect(data) is None
