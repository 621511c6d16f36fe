"""The messages about recoveries of one service."""

from __future__ import annotations

import os
from pathlib import Path

from rolling_upgrade.features.watchdog.recovery import MESSAGE_AGAIN_SECONDS, message_is_due


def test_message_is_due_once_per_interval_for_each_service(tmp_path: Path) -> None:
    (tmp_path / "watchdog").mkdir()

    assert [message_is_due(tmp_path, "backend") for _ in range(2)] == [True, False]
    assert message_is_due(tmp_path, "frontend")
    marker = tmp_path / "watchdog" / "recovered-backend"
    before = marker.stat().st_mtime - MESSAGE_AGAIN_SECONDS
    os.utime(marker, (before, before))
    assert message_is_due(tmp_path, "backend")
