"""The records of a load run, one per request, and figures computed from them.

Times are seconds of the machine's monotonic clock. All its processes share it, so that records can be compared with
the times of a deploy in another process.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, NamedTuple

from lab.load.wire import Cause


class Kind(StrEnum):
    """The purpose of a request, and the kind of its connection."""

    KEPT = "kept connection"
    FRESH = "new connection"
    UPLOAD = "upload"
    SLOW = "slow request"
    STREAM = "event stream"
    READ_BACK = "read back"

    @property
    def prompt(self) -> bool:
        """Whether the latency measures the speed of the service. Slow requests and streams last long by design."""
        return self not in (Kind.SLOW, Kind.STREAM)


class Record(NamedTuple):
    """One request: its scheduled time, its latency, and its outcome.

    The latency counts from the scheduled time and not from the sending, so that a stall of the service is visible even
    though the client waits during it.
    """

    due: float
    latency: float
    kind: Kind
    server: str
    service: str = ""
    version: str = ""
    cause: Cause | None = None
    detail: str = ""

    @property
    def ended(self) -> float:
        """The time at which the answer was complete or the request failed."""
        return self.due + self.latency

    def __str__(self) -> str:
        cause = self.cause.value if self.cause else "ok"
        return f"{self.server}  {self.kind.value}: {cause}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class Window:
    """The figures of the requests that ended in a period."""

    requests: int
    failures: tuple[Record, ...]
    p50_ms: float
    p99_ms: float
    max_ms: float

    @property
    def failed(self) -> int:
        """The number of failed requests."""
        return len(self.failures)


@dataclass(frozen=True)
class Sighting:
    """A version of a service on a server: its number of answers, and the times of the first and the last one."""

    server: str
    service: str
    version: str
    answers: int
    first: float
    last: float


@dataclass(frozen=True)
class LoadResult:
    """The result of one load run."""

    started: float
    ended: float
    records: tuple[Record, ...]
    writes_acknowledged: int
    lost: tuple[str, ...]

    @property
    def writes_lost(self) -> int:
        """The number of acknowledged writes that could not be read back unchanged."""
        return len(self.lost)

    @property
    def failures(self) -> tuple[Record, ...]:
        """Every failed request, sorted by the time of its failure."""
        failed = [record for record in self.records if record.cause]
        return tuple(sorted(failed, key=lambda record: record.ended))

    @property
    def causes(self) -> dict[str, int]:
        """The number of failures by cause."""
        return dict(Counter(record.cause.value for record in self.records if record.cause))

    def window(self, start: float = -math.inf, end: float = math.inf) -> Window:
        """Return the figures of the requests that ended in `start <= t < end`."""
        chosen = [record for record in self.records if start <= record.ended < end]
        latencies = sorted(record.latency for record in chosen if record.kind.prompt)
        return Window(
            requests=len(chosen),
            failures=tuple(record for record in chosen if record.cause),
            p50_ms=_percentile_ms(latencies, 0.50),
            p99_ms=_percentile_ms(latencies, 0.99),
            max_ms=_percentile_ms(latencies, 1.0),
        )

    def kinds(self) -> dict[Kind, int]:
        """Return the number of requests by kind."""
        return dict(Counter(record.kind for record in self.records))

    def sightings(self, start: float = -math.inf, end: float = math.inf) -> tuple[Sighting, ...]:
        """Return the versions that answered requests scheduled in `start <= t < end`, in order of appearance."""
        times: dict[tuple[str, str, str], list[float]] = {}
        for record in self.records:
            if record.version and start <= record.due < end:
                times.setdefault((record.server, record.service, record.version), []).append(record.ended)
        seen = [Sighting(*key, len(ends), min(ends), max(ends)) for key, ends in times.items()]
        return tuple(sorted(seen, key=lambda sighting: sighting.first))

    def as_json(self) -> dict[str, Any]:
        """Return JSON values that `from_json` reads."""
        return {
            "started": self.started,
            "ended": self.ended,
            "records": [_row(record) for record in self.records],
            "writes_acknowledged": self.writes_acknowledged,
            "lost": list(self.lost),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LoadResult:
        """Read the values of `as_json`."""
        return cls(
            started=data["started"],
            ended=data["ended"],
            records=tuple(_record(row) for row in data["records"]),
            writes_acknowledged=data["writes_acknowledged"],
            lost=tuple(data["lost"]),
        )


def _row(record: Record) -> list[Any]:
    cells: list[Any] = list(record)
    return [cell.value if isinstance(cell, Enum) else cell for cell in cells]


def _record(row: Iterable[Any]) -> Record:
    due, latency, kind, server, service, version, cause, detail = row
    return Record(due, latency, Kind(kind), server, service, version, Cause(cause) if cause else None, detail)


def _percentile_ms(ordered: list[float], share: float) -> float:
    """Return the smallest latency that at least `share` of all latencies do not exceed, or 0 without any."""
    if not ordered:
        return 0.0
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)] * 1000, 1)
