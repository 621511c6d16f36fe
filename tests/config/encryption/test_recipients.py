"""The recipients file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rolling_upgrade.config.encryption import Encryption
from rolling_upgrade.config.encryption.recipients import Recipient, add_line, parse, parse_line, remove_line
from tests.support.encryption_keys import age_key, public, ssh_key


def test_parse_returns_keys_with_their_owners(tmp_path: Path) -> None:
    ann, ci = public(ssh_key(tmp_path / "ann", "ann@laptop")), age_key(tmp_path / "ci")
    text = f"# the team\n\n{ann.line}\n  {ci.key}  # CI of the project\ngpg {'ab' * 20} Carl\n"

    listed, faults = parse(text)

    assert faults == ()
    assert [recipient.title for recipient in listed] == ["ann@laptop", "CI of the project", "Carl"]
    assert [recipient.encryption for recipient in listed] == [Encryption.AGE, Encryption.AGE, Encryption.GPG]
    assert listed[2].key == f"gpg {'AB' * 20}"


def test_fingerprint_equals_the_output_of_ssh_keygen(tmp_path: Path) -> None:
    key = ssh_key(tmp_path / "ann", "ann")
    shown = subprocess.run(["ssh-keygen", "-lf", str(key)], capture_output=True, text=True, check=True).stdout

    assert public(key).fingerprint == shown.split()[1]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("hello", "not a public key"),
        ("ssh-ed25519", "not a public key"),
        ("ssh-ed25519 not-base64!", "not a public key"),
        ("ssh-ed25519 ÄÄÄÄ", "not a public key"),
        ("ssh-ed25519 AAAAB3NzaC1yc2EAAAADAQAB", "not a public key"),
        ("ecdsa-sha2-nistp256 AAAA", "age does not support"),
        ("sk-ssh-ed25519@openssh.com AAAA", "age does not support"),
        ("AGE-SECRET-KEY-1ABC", "a private key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "a private key"),
        ("age1short", "not a public key"),
        ("gpg ABCD1234", "not a public key"),
        ("gpg ann@example.org", "not a public key"),
    ],
)
def test_parse_invalid_line_is_reported(line: str, fault: str) -> None:
    (listed, ((number, message),)) = parse(f"# comment\n{line}\n")

    assert listed == ()
    assert number == 2
    assert fault in message


def test_parse_duplicate_key_is_reported(tmp_path: Path) -> None:
    ann = public(ssh_key(tmp_path / "ann", "ann"))

    _, ((number, fault),) = parse(f"{ann.key} ann\n{ann.key} bob\n")

    assert (number, fault) == (2, "a duplicate of the key of ann")


def test_add_and_remove_line_keep_every_other_byte(tmp_path: Path) -> None:
    ann, bob = public(ssh_key(tmp_path / "ann", "ann")), public(ssh_key(tmp_path / "bob", "bob"))
    text = f"# the team\r\n\n{ann.line}"

    longer = add_line(text, bob)

    assert longer == f"{text}\n{bob.line}\n"
    assert remove_line(longer, bob) == f"{text}\n"
    assert remove_line(f"{bob.line}\n{text}", bob) == text


def test_recipient_without_a_comment_has_its_fingerprint_as_title() -> None:
    assert parse_line("age1" + "q" * 58) == Recipient("age1" + "q" * 58)
    assert Recipient("age1" + "q" * 58).title == "age1" + "q" * 58
