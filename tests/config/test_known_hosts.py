"""Which lines of a known_hosts file name a host."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest

from fabfile.config.known_hosts import is_known

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
        (f"@cert-authority *.test {KEY}", "a.test", 22, True),
        (f"@revoked 192.0.2.1 {KEY}", "192.0.2.1", 22, False),
        (f"# 192.0.2.1 {KEY}", "192.0.2.1", 22, False),
        ("192.0.2.1", "192.0.2.1", 22, False),
        ("", "192.0.2.1", 22, False),
    ],
)
def test_is_known_line_names_the_host(line: str, address: str, port: int, known: bool, tmp_path: Path) -> None:
    (tmp_path / "known_hosts").write_text(f"other.test {KEY}\n{line}\n")

    assert is_known(address, port, [str(tmp_path / "missing"), str(tmp_path / "known_hosts")]) is known
