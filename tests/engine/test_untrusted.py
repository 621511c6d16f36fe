"""Sizes in messages."""

from __future__ import annotations

import pytest

from rolling_upgrade.engine.untrusted import size


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 * 1024**3, "5 GiB"), (2**41, "2 TiB")],
)
def test_size_is_in_the_largest_unit(count: int, text: str) -> None:
    assert size(count) == text
