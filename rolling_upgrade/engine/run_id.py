"""The ids of runs."""

from __future__ import annotations

import secrets
import time
from datetime import datetime, timezone


def new_run_id(now: float | None = None) -> str:
    """A unique id that sorts by time, such as 20261123T020000Z-3fa2b1; `now` is in Unix seconds."""
    moment = datetime.fromtimestamp(time.time() if now is None else now, timezone.utc)
    return f"{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
