"""Records of known_hosts files: which name a host, which are accepted, and how they are rewritten."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest

from rolling_upgrade.engine.openssh import PublicKey, read_records, rewritten, usable

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
