"""The SSH server of the hostile tests, which change the keys that it accepts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.sshd import Sshd


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd.start(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()
