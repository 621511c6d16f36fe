"""In which order the hosts of a run are upgraded. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence


def size(batch: str, hosts: int) -> int:
    """How many hosts `N` or `P%` makes of a fleet; at least one, a share is rounded up. Raises ValueError."""
    text = batch.strip()
    number = text.removesuffix("%")
    if not (number.isascii() and number.isdigit()) or int(number) == 0:
        raise ValueError(f"{batch!r} is neither a number of hosts nor a percentage above 0")
    return max(1, math.ceil(hosts * int(number) / 100)) if text.endswith("%") else int(number)


def split(names: Sequence[str], batch: str) -> tuple[tuple[str, ...], ...]:
    """The names in batches, in their own order. Raises ValueError."""
    if not names:
        return ()
    step = size(batch, len(names))
    return tuple(tuple(names[start : start + step]) for start in range(0, len(names), step))
