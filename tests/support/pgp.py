"""A real gpg with temporary keyrings."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path


class Pgp:
    """A person's keyring, and the keyrings of others."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.homes = [home]

    def key(self, who: str, home: Path | None = None, *, passphrase: str = "") -> str:
        """Generate a key with an encryption subkey, and return its fingerprint."""
        self.run("--passphrase", passphrase, "--quick-gen-key", who, "rsa2048", "sign", "never", home=home)
        fingerprint = self.fingerprints(home)[-1]
        self.run("--passphrase", passphrase, "--quick-add-key", fingerprint, "rsa2048", "encr", "never", home=home)
        return fingerprint

    def stranger(self, who: str) -> str:
        """Generate a key in another keyring and import its public key here."""
        other = self.home.with_name(f"gnupg{len(self.homes)}")
        other.mkdir(mode=0o700)
        self.homes.append(other)
        fingerprint = self.key(who, other)
        exported = self.run("--export", fingerprint, home=other)
        self.run("--import", data=exported)
        return fingerprint

    def fingerprints(self, home: Path | None = None) -> list[str]:
        """Return the fingerprints of the primary keys in the order of creation."""
        rows = self.run("--with-colons", "--list-keys", home=home).decode().splitlines()
        named = [row.split(":") for row in rows if row.startswith(("pub", "fpr"))]
        return [row[9] for before, row in pairwise(named) if before[0] == "pub"]

    def run(self, *words: str, data: bytes = b"", home: Path | None = None) -> bytes:
        """Run gpg and return its output."""
        command = ["gpg", "--homedir", str(home or self.home), "--batch", "--quiet", "--no-tty"]
        command += ["--pinentry-mode", "loopback", *words]
        return subprocess.run(command, input=data, capture_output=True, check=True, timeout=60).stdout
