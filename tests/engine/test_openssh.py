"""Public keys of OpenSSH, and known_hosts files."""

from __future__ import annotations

import base64
import hashlib
import hmac
import subprocess
from pathlib import Path

import pytest

from rolling_upgrade.engine.openssh import PublicKey, read_public_key, read_records, rewritten, usable
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


KEY = "ssh-ed25519 AAAA"


def hashed(name: str) -> str:
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("line", "address", "port", "known"),
    [
        (f"192.0.2.1 {KEY}", "192.0.2.1", 22, True),
        (f"web.test,192.0.2.1 {KEY} comment", "WEB.test", 22, True),
        (f"192.0.2.1 {KEY}", "192.0.2.1", 2222, False),
        (f"[192.0.2.1]:2222 {KEY}", "192.0.2.1", 2222, True),
        (f"[192.0.2.1]:2222 {KEY}", "192.0.2.1", 22, False),
        (f"*.web.test {KEY}", "a.web.test", 22, True),
        (f"*.test,!a.test {KEY}", "a.test", 22, False),
        (f"{hashed('192.0.2.1')} {KEY}", "192.0.2.1", 22, True),
        (f"{hashed('[192.0.2.1]:2222')} {KEY}", "192.0.2.1", 2222, True),
        (f"{hashed('192.0.2.2')} {KEY}", "192.0.2.1", 22, False),
        (f"|1|no base64|at all {KEY}", "192.0.2.1", 22, False),
        (f"@cert-authority *.test {KEY}", "a.test", 22, False),
        (f"@revoked 192.0.2.1 {KEY}", "192.0.2.1", 22, False),
        (f"# 192.0.2.1 {KEY}", "192.0.2.1", 22, False),
        ("192.0.2.1", "192.0.2.1", 22, False),
        ("", "192.0.2.1", 22, False),
    ],
)
def test_usable_line_that_names_the_host_is_found(
    line: str, address: str, port: int, known: bool, tmp_path: Path
) -> None:
    (tmp_path / "known_hosts").write_text(f"other.test {KEY}\n{line}\n")

    records = read_records(address, port, [str(tmp_path / "missing"), str(tmp_path / "known_hosts")])

    assert bool(usable(records)) is known


def test_usable_returns_the_first_key_of_each_type(tmp_path: Path) -> None:
    for name, text in (("own", "web ssh-ed25519 BBBB\n"), ("users", "web ssh-ed25519 CCCC\nweb ssh-rsa DDDD\n")):
        (tmp_path / name).write_text(text)

    found = usable(read_records("web", 22, [str(tmp_path / "own"), str(tmp_path / "users")]))

    assert [record.key.blob for record in found] == ["BBBB", "DDDD"]


def test_usable_omits_a_key_that_any_line_revokes(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("web ssh-ed25519 BBBB\n@revoked * ssh-ed25519 BBBB\nweb ssh-rsa DDDD\n")

    records = read_records("web", 22, [str(tmp_path / "own")])

    assert [(record.number, record.revoked) for record in records] == [(1, False), (2, True), (3, False)]
    assert [record.key.blob for record in usable(records)] == ["DDDD"]


@pytest.mark.parametrize(
    ("line", "left"),
    [
        (KEY, ""),
        (f"web {KEY}", ""),
        (f"WEB {KEY} comment", ""),
        (f"web,db {KEY} c", f"db {KEY} c"),
        (f"{hashed('web')} {KEY}", ""),
        (f"{hashed('db')} {KEY}", f"{hashed('db')} {KEY}"),
        (f"[web]:2222 {KEY}", f"[web]:2222 {KEY}"),
        (f"@revoked web {KEY}", f"@revoked web {KEY}"),
        ("# web", "# web"),
        ("", ""),
    ],
)
def test_rewritten_line_loses_only_the_name(line: str, left: str) -> None:
    text = rewritten(f"{line}\n", ["web"], [("web", PublicKey("ssh-rsa", "EEEE"))])

    kept = line if line == KEY else left
    assert text.replace("\n", "|").strip("|") == f"{kept}|web ssh-rsa EEEE".strip("|")


def test_rewritten_line_with_a_matching_wildcard_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 2 matches it with a wildcard"):
        rewritten(f"# mine\n*.test {KEY}\n", ["a.test"], [])


def test_rewritten_file_without_a_final_newline_keeps_its_last_line() -> None:
    assert rewritten(f"db {KEY}", ["web"], [("web", PublicKey("a", "b"))]) == f"db {KEY}\nweb a b\n"
