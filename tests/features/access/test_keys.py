"""Read deploy/authorized_keys: granted and revoked keys, and invalid files."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolling_upgrade.errors import ConfigError
from rolling_upgrade.features.access.keys import is_name, key_names, read_access
from tests.support.ssh_keys import ed25519, key, rsa


def write(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        path = directory / name.replace("__", "/").replace("_pub", ".pub")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def test_read_access_missing_directory_grants_nothing(tmp_path: Path) -> None:
    assert read_access(str(tmp_path / "none")).granted == ()


def test_read_access_granted_and_revoked_keys_have_names(tmp_path: Path) -> None:
    write(tmp_path, bob_pub=ed25519(2), alice_pub=f"{ed25519(1)} a\n")
    write(tmp_path, revoked__alice_pub=f"{ed25519(3)}\n{ed25519(4)}\n")

    found = read_access(str(tmp_path))

    assert [name for name, _ in found.granted] == ["alice", "bob"]
    assert found.names[key(4).fingerprint] == "alice (revoked)"
    assert key_names(str(tmp_path)) == found.names


def test_read_access_interrupted_revocation_counts_as_revoked(tmp_path: Path) -> None:
    write(tmp_path, bob_pub=ed25519(2), alice_pub=ed25519(1))
    write(tmp_path, revoked__alice_pub=ed25519(1))

    found = read_access(str(tmp_path))

    assert [name for name, _ in found.granted] == ["bob"]
    assert found.revoked_blobs == {key(1).blob}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("alice.pub", "", "no key"),
        ("alice.pub", rsa(2048), "2048 bits"),
        ("alice.pub", f"{ed25519(1)}\n{ed25519(2)}", "more than one line"),
        ("alice.pub", "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter22", "PRIVATE key"),
        ("alice", ed25519(1), "another name"),
        ("al ice.pub", ed25519(1), "another name"),
        ("bob.pub", ed25519(7), "the key of alice.pub"),
        ("zoe.pub", ed25519(8), "revoked"),
    ],
)
def test_read_access_invalid_file_is_an_error(name: str, text: str, message: str, tmp_path: Path) -> None:
    if name != "alice.pub":
        write(tmp_path, alice_pub=ed25519(7))
    write(tmp_path, revoked__eve_pub=ed25519(8))
    (tmp_path / name).write_text(text)

    with pytest.raises(ConfigError) as caught:
        read_access(str(tmp_path))

    assert message in str(caught.value)
    assert "hunter22" not in str(caught.value)


def test_key_names_invalid_file_is_skipped(tmp_path: Path) -> None:
    write(tmp_path, alice_pub=ed25519(1), bob_pub="nonsense")

    assert key_names(str(tmp_path)) == {key(1).fingerprint: "alice"}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a b", "-x", ".hidden", "a\nb", "a\0", "a;b", "é", "a\n"]
)
def test_is_name_unsafe_name_is_refused(name: str) -> None:
    assert not is_name(name)
