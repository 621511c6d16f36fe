"""Stand-ins for programs, for the tests that run what a planner selects."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.running import Programs


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """An empty directory of programs that come first on PATH."""
    return Programs(tmp_path / "bin")
