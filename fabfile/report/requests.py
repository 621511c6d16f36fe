"""What a load run saw of the application, second by second: read from a file of requests. It sends none.

The file has one JSON object per line and request: `at`, Unix seconds at which its answer was complete or it failed,
`ms`, its latency, and `ok`. `make demo` writes one; so can any load generator.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """One request: when it ended (Unix seconds), how long it took (milliseconds), whether it was answered well."""

    at: float
    ms: float
    ok: bool


@dataclass(frozen=True)
class Requests:
    """Requests by the time at which they ended."""

    asked: tuple[Asked, ...]

    @classmethod
    def read(cls, lines: Iterable[str]) -> Requests:
        """The requests of a file. Raises ValueError that names the line which is none."""
        found = [_asked(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        return cls(tuple(sorted(found)))

    def figures(self, start: float, end: float) -> dict[str, Any]:
        """Count, failures, p50 and p99 (milliseconds) of the requests that ended in `start <= t < end`."""
        chosen = self._between(start, end)
        latencies = sorted(one.ms for one in chosen if one.ok)
        return {
            "requests": len(chosen),
            "failed": sum(not one.ok for one in chosen),
            "p50_ms": _percentile(latencies, 0.50),
            "p99_ms": _percentile(latencies, 0.99),
        }

    def each_second(self, start: float, end: float, most: int = 600) -> list[dict[str, Any]]:
        """The figures of each second, the first `most` of them."""
        first = math.floor(start)
        seconds = range(first, min(math.ceil(end), first + most))
        return [{"at": second, **self.figures(second, second + 1)} for second in seconds]

    def _between(self, start: float, end: float) -> Sequence[Asked]:
        return self.asked[bisect_left(self.asked, (start,)) : bisect_left(self.asked, (end,))]


def _asked(number: int, line: str) -> Asked:
    try:
        fields = json.loads(line)
        return Asked(float(fields["at"]), float(fields["ms"]), bool(fields["ok"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"line {number} is no request with at, ms and ok") from error


def _percentile(ordered: Sequence[float], share: float) -> float:
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 1) if ordered else 0.0
