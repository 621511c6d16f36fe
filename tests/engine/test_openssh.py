"""Parsing of public keys: accepted and refused keys, and errors that never repeat the input."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rolling_upgrade.engine.openssh import read_public_key
from tests.support.ssh_keys import ed25519, rsa, wire

GOOD = ed25519(1)
BLOB = GOOD.split()[1]
_POINT = b"\x04" + b"p" * 64


@pytest.mark.parametrize(
    ("kind", "bits"), [("ed25519", ""), ("rsa", "3072"), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521")]
)
def test_read_public_key_made_by_ssh_keygen_has_its_fingerprint(kind: str, bits: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    size = ["-b", bits] if bits else []
    subprocess.run(["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", "ann at home", "-f", path], check=True)
    listed = subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True).stdout

    key = read_public_key(path.with_suffix(".pub").read_text())

    assert (key.fingerprint, key.comment) == (listed.split()[1], "ann at home")
    with pytest.raises(ValueError, match="PRIVATE key") as refused:
        read_public_key(path.read_text())
    assert path.read_text().splitlines()[1] not in str(refused.value)


@pytest.mark.parametrize("text", [GOOD, f" {GOOD}\n", f"{GOOD} ann\r\n", f"{GOOD}  ann at home", rsa(3072), rsa(4096)])
def test_read_public_key_one_line_is_read(text: str) -> None:
    assert read_public_key(text).type in ("ssh-ed25519", "ssh-rsa")


@pytest.mark.parametrize("type", ["sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"])
def test_read_public_key_of_a_hardware_token_is_read(type: str) -> None:
    body = (b"p" * 32,) if "ed25519" in type else (b"nistp256", _POINT)

    assert read_public_key(f"{type} {wire(type.encode(), *body, b'ssh:')} token").comment == "token"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no key"),
        (" \n", "no key"),
        ("hunter22", "not an OpenSSH public key"),
        (f"{GOOD}\n{ed25519(2)}", "more than one line"),
        (f"{GOOD} ann\nssh-rsa x", "more than one line"),
        (f"{GOOD}\r{GOOD}", "more than one line"),
        (f'command="/bin/sh" {GOOD}', "options before"),
        (f"restrict {GOOD}", "options before"),
        (f'environment="A=b c" {GOOD}', "options before"),
        (f"# {GOOD}", "options before"),
        (f"{GOOD} a\x1b[31mb", "control characters"),
        (f"{GOOD} a\0b", "control characters"),
        (f"{GOOD} a\u202eb", "control characters"),
        (f"{GOOD} {'a' * 300}", "more than 200"),
        (rsa(2048), "an RSA key of 2048 bits; at least 3072"),
        (rsa(1024), "1024 bits"),
        (f"ssh-dss {wire(b'ssh-dss', b'1', b'2', b'3', b'4')}", "a DSA key, which is too weak"),
        (f"ssh-ed25519-cert-v01@openssh.com {BLOB}", "certificate"),
        (f"ssh-xmss@openssh.com {BLOB}", "unsupported key type"),
        ("ssh-ed25519", "does not match its type"),
        ("ssh-ed25519 hunter22!", "not base64"),
        (f"ssh-ed25519 {BLOB[:-8]}", "truncated"),
        (f"ssh-ed25519 {BLOB[:20]}\N{LATIN SMALL LETTER E WITH ACUTE}", "not base64"),
        (f"ssh-rsa {BLOB}", "does not match its type"),
        (f"ssh-ed25519 {wire(b'ssh-ed25519', b'p' * 31)}", "wrong length"),
        (f"ssh-ed25519 {wire(b'ssh-ed25519', b'p' * 32, b'more')}", "wrong length"),
        (f"ecdsa-sha2-nistp256 {wire(b'ecdsa-sha2-nistp256', b'nistp384', _POINT)}", "wrong length"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\nPrivate-Lines: 1\nhunter22", "PRIVATE key"),
        ("-----BEGIN RSA PRIVATE KEY-----\nhunter22", "PRIVATE key"),
        ("b3BlbnNzaC1rZXktdjEAAAAABG5vbmUhunter22", "PRIVATE key"),
        ("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA", "RFC 4716"),
    ],
)
def test_read_public_key_refuses_other_text_without_repeating_it(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        read_public_key(text)

    assert "hunter22" not in str(refused.value)
    assert BLOB[:16] not in str(refused.value)
