"""Helpers of the data model."""

from __future__ import annotations

from rolling_upgrade.engine.model import short_digest


def test_short_digest_has_twelve_digits() -> None:
    assert short_digest("sha256:" + "ab12" * 16) == "ab12ab12ab12"
