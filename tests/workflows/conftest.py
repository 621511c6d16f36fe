"""The team that encrypts its env file, and a gpg of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sealing.conftest import pgp
from tests.workflows.team import Team

__all__ = ["pgp", "team"]

#: Variables of the person who runs the tests: none of them may decide here.
OWN = (
    "ROLLING_AGE_KEY",
    "ROLLING_AGE_KEY_FILE",
    "ANSIBLE_VAULT_PASSWORD_FILE",
    "VISUAL",
    "EDITOR",
    "XDG_RUNTIME_DIR",
)


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    """A project with a plain env file, in a home with ann's key."""
    for name in OWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Team(tmp_path)
