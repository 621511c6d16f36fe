"""What every test of this folder may use: an authority that this process trusts, as if the system did."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.certificate import Authority


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority in the place of the system's: OpenSSL reads this variable wherever no other file is named."""
    made = Authority.made(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    return made


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is reached directly, whatever the machine's environment says."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
