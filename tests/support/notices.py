"""Sample notices."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.engine.model import HostResult, Notice, Occasion, VersionChange

RELEASE = "20261123T044253Z-6c2844"
#: 03:12:45 UTC on 23 November 2026.
NOW = 1_795_403_565.0


def notice(occasion: Occasion = Occasion.DEPLOY_UNDONE, **changes: Any) -> Notice:
    """Return a notice with every field set."""
    values: dict[str, Any] = {
        "application": "memoryark",
        "environment": "production",
        "thread": RELEASE,
        "at": NOW,
        "hosts": ("web1", "web2"),
        "who": "ann",
        "target": "v2",
        "check": "backend",
        "changes": (VersionChange("backend", "v1", "v2"), VersionChange("frontend", "", "v2", ("web2",))),
        "results": (("web1", HostResult.UPGRADED), ("web2", HostResult.UNDONE)),
        "seconds": 192.4,
        "cause": "web2: backend: start green: failed (status 1).\n  last: HTTP 502 <html>&",
        "next_command": "inv status --env production",
        "text": "The tea is ready.",
    }
    return Notice(occasion, **(values | changes))
