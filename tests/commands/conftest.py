"""What the tests of shell text share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.running import Programs
from tests.commands.site import Site


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path / "bin")


@pytest.fixture
def site(tmp_path: Path, programs: Programs) -> Site:
    return Site(tmp_path, programs)
