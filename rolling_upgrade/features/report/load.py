"""Reads a file of requests that were sent during a run, and computes their figures for any span of time.

The file has one JSON object per line and request: `at`, Unix seconds at which the response was complete or the request
failed, `ms`, its latency, and `ok`. `make demo` writes such a file; so can any load generator.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rolling_upgrade.engine import untrusted

_MAX_LINE_BYTES = 64 << 10
#: The seconds of the chart of a load.
MAX_SECONDS = 600


class TimedRequest(NamedTuple):
    """One request: when it ended (Unix seconds), its latency (milliseconds), and whether it succeeded."""

    at: float
    ms: float
    ok: bool


@dataclass(frozen=True)
class Figures:
    """Requests in a span of time: their number, the failed ones, and the latencies of the others (milliseconds)."""

    requests: int
    failed: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Requests:
    """Requests in the order in which they ended."""

    requests: tuple[TimedRequest, ...]

    @classmethod
    def read(cls, lines: Iterable[str]) -> Requests:
        """Parse the lines of a file. Raises ValueError with the number of an invalid line."""
        requests = [_request(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        return cls(tuple(sorted(requests)))

    def figures(self, start: float, end: float) -> Figures:
        """Return the figures of the requests that ended in `start <= t < end`."""
        chosen = self._between(start, end)
        latencies = sorted(request.ms for request in chosen if request.ok)
        failed = sum(not request.ok for request in chosen)
        return Figures(len(chosen), failed, _percentile(latencies, 0.50), _percentile(latencies, 0.99))

    def each_second(self, start: float, end: float) -> list[tuple[int, Figures]]:
        """Return the figures of each second, of the first MAX_SECONDS seconds."""
        first = math.floor(start)
        seconds = range(first, min(math.ceil(end), first + MAX_SECONDS))
        return [(second, self.figures(second, second + 1)) for second in seconds]

    def _between(self, start: float, end: float) -> Sequence[TimedRequest]:
        return self.requests[bisect_left(self.requests, (start,)) : bisect_left(self.requests, (end,))]


def _request(number: int, line: str) -> TimedRequest:
    try:
        fields = untrusted.json_object(line, max_bytes=_MAX_LINE_BYTES)
        return TimedRequest(untrusted.moment(fields["at"]), untrusted.number(fields["ms"]), bool(fields["ok"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"line {number} is not an object with at, ms and ok") from error


def _percentile(ordered: Sequence[float], share: float) -> float:
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 1) if ordered else 0.0
