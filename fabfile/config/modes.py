"""Who on this machine may read a file with secrets. It changes nothing."""

from __future__ import annotations

import stat
from pathlib import Path

#: What a file with secrets may allow at the most: its owner anything, its group to read. A key is for its owner alone.
WIDEST, OWNER_ALONE = 0o740, 0o700


def too_open(path: Path, widest: int = WIDEST) -> str:
    """The mode of a file that allows more than it should, as people write it; '' when it is well or not there."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return ""
    return f"{mode:04o}" if mode & 0o777 & ~widest else ""
