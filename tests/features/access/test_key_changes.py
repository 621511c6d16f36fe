"""Grants and revocations of keys in deploy/authorized_keys; only `write` changes files."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Environment
from rolling_upgrade.errors import ConfigError, PreflightError
from rolling_upgrade.features.access import keys
from rolling_upgrade.features.access.keys import read_access
from tests.support.ssh_keys import ed25519, key, rsa


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    directory = tmp_path / "production"
    directory.mkdir()
    (directory / "alice.pub").write_text(f"{ed25519(1)} ann\n")
    return Environment("production", (), access_directory=str(directory))


def names(environment: Environment) -> list[str]:
    return [name for name, _ in read_access(environment.access_directory).granted]


def grant(environment: Environment, name: str, text: str) -> None:
    keys.grant(environment, name, text).write()


def test_grant_key_is_written_by_write(environment: Environment) -> None:
    change = keys.grant(environment, "bob", ed25519(2))
    assert names(environment) == ["alice"]

    change.write()

    assert names(environment) == ["alice", "bob"]
    assert (Path(environment.access_directory) / "bob.pub").read_text() == f"{ed25519(2)} bob\n"


def test_grant_key_file_keeps_its_comment(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "my key.pub").write_text(f"{ed25519(2)} bob at work\n")

    grant(environment, "bob", str(tmp_path / "my key.pub"))

    assert dict(read_access(environment.access_directory).granted)["bob"].comment == "bob at work"


def test_grant_same_key_again_changes_nothing(environment: Environment) -> None:
    assert keys.grant(environment, "alice", ed25519(1)).title == ""


@pytest.mark.parametrize("name", ["../x", "", "a/b", "a\nb", "revoked/eve", "-n", "a b", "\x1b[31m"])
def test_grant_invalid_name_is_refused(name: str, environment: Environment) -> None:
    with pytest.raises(ConfigError, match="--name"):
        keys.grant(environment, name, ed25519(2))

    assert sorted(path.name for path in Path(environment.access_directory).parent.rglob("*.pub")) == ["alice.pub"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no key"),
        ("/nowhere/key.pub", "neither an existing file"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nhunter22\n", "PRIVATE key"),
        (f"{ed25519(2)}\n{ed25519(3)}", "more than one line"),
        (f'command="x" {ed25519(2)}', "options"),
        (rsa(2048), "2048 bits"),
        (f"{ed25519(2)} a\x1b[2J", "control characters"),
        (ed25519(1), "the key of alice"),
        ("hunter22", "neither an existing file"),
        ("x" * 100_000, "neither an existing file"),
        ("a\0b", "neither an existing file"),
    ],
)
def test_grant_invalid_key_is_refused(text: str, message: str, environment: Environment) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        keys.grant(environment, "bob", text)

    assert "hunter22" not in str(caught.value)


def test_grant_private_key_file_is_refused_and_not_printed(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nhunter22\n")

    with pytest.raises(ConfigError, match="PRIVATE") as caught:
        keys.grant(environment, "bob", str(tmp_path / "id"))

    assert "hunter22" not in str(caught.value)


def test_grant_name_with_another_key_is_refused(environment: Environment) -> None:
    with pytest.raises(ConfigError, match="has another key"):
        keys.grant(environment, "alice", ed25519(2))


def test_revoke_key_is_recorded_and_cannot_be_granted_again(environment: Environment) -> None:
    grant(environment, "bob", ed25519(2))

    keys.revoke(environment, "bob").write()

    assert names(environment) == ["alice"]
    assert read_access(environment.access_directory).names[key(2).fingerprint] == "bob (revoked)"
    with pytest.raises(ConfigError, match=r"the key of bob \(revoked\)"):
        keys.grant(environment, "bob", ed25519(2))


def test_revoke_two_keys_of_one_name_records_both(environment: Environment) -> None:
    for number in (2, 3):
        grant(environment, "bob", ed25519(number))
        keys.revoke(environment, "bob").write()

    assert len(read_access(environment.access_directory).revoked) == 2


def test_revoke_interrupted_is_finished_by_a_second_call(environment: Environment) -> None:
    grant(environment, "bob", ed25519(2))
    keys.revoke(environment, "bob").write()

    assert keys.revoke(environment, "bob").title == ""


def test_revoke_last_key_is_refused(environment: Environment) -> None:
    with pytest.raises(PreflightError, match="last key"):
        keys.revoke(environment, "alice")


def test_revoke_unknown_name_lists_the_known_names(environment: Environment) -> None:
    with pytest.raises(ConfigError, match="one of: alice"):
        keys.revoke(environment, "../alice")


def test_no_change_empty_directory_is_refused() -> None:
    with pytest.raises(PreflightError, match="has no key"):
        keys.no_change(Environment("production", (), access_directory="/nowhere"))
