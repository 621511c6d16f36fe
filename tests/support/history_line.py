"""A line of a release history, as tests write it."""

from __future__ import annotations

import json

from rolling_upgrade.engine.history import _fixed
from rolling_upgrade.engine.model import Release


def history_line(release: Release) -> str:
    """Return a release as one line of JSON, without the fields that the host adds."""
    start, rest = _fixed(release)
    seconds, reason = round(release.seconds, 1), json.dumps(release.reason)
    return f'{start}{release.outcome.value}", {rest}, "seconds": {seconds}, "reason": {reason}}}'
