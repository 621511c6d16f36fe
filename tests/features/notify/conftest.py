"""A certificate authority that this process trusts, and direct connections to loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.certificate import Authority


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """Replace the system's authorities. Source: OpenSSL reads this variable if no other file is given."""
    authority = Authority.create(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect to loopback directly, even if the environment names a proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
