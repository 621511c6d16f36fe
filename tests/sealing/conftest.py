"""A gpg with a keyring of its own, whose agent ends with the test."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sealing.pgp import Pgp


@pytest.fixture
def pgp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pgp]:
    """A keyring with one key, which this process uses too."""
    gpgconf = shutil.which("gpgconf")
    assert gpgconf
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    made = Pgp(home)
    made.key("Ann <ann@example.org>")
    try:
        yield made
    finally:
        for one in made.homes:
            subprocess.run([gpgconf, "--homedir", str(one), "--kill", "all"], check=True, timeout=30)
