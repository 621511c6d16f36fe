"""What a load run saw: one record per request, and the figures drawn from them. It sends nothing.

Times are seconds of the machine's monotonic clock, which every process on it shares, so that a deploy in
another process can be laid over the records.
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
    """What a request was for, and on which kind of connection it went."""

    KEPT = "kept connection"
    FRESH = "new connection"
    UPLOAD = "upload"
    SLOW = "slow request"
    STREAM = "event stream"
    READ_BACK = "read back"

    @property
    def prompt(self) -> bool:
        """Whether its latency tells how fast the service is; slow requests and streams last by design."""
        return self not in (Kind.SLOW, Kind.STREAM)


class Record(NamedTuple):
    """One request: when it was due, how long until its answer was complete, and how that went.

    The latency counts from when the request was due, not from when it was sent: a stall of the service is
    then never hidden by a client that waits with it.
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
        """When the answer was complete or the request had failed."""
        return self.due + self.latency

    def __str__(self) -> str:
        cause = self.cause.value if self.cause else "ok"
        return f"{self.server}  {self.kind.value}: {cause}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class Window:
    """The figures of one stretch of time: requests that ended in it."""

    requests: int
    failures: tuple[Record, ...]
    p50_ms: float
    p99_ms: float
    max_ms: float

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return len(self.failures)


@dataclass(frozen=True)
class Sighting:
    """A version that a service on a server answered with: how often, and from when to when."""

    server: str
    service: str
    version: str
    answers: int
    first: float
    last: float


@dataclass(frozen=True)
class LoadResult:
    """Everything one load run saw."""

    started: float
    ended: float
    records: tuple[Record, ...]
    writes_acknowledged: int
    lost: tuple[str, ...]

    @property
    def writes_lost(self) -> int:
        """How many acknowledged writes could not be read back as they were sent."""
        return len(self.lost)

    @property
    def failures(self) -> tuple[Record, ...]:
        """Every failed request, by the time it failed."""
        failed = [record for record in self.records if record.cause]
        return tuple(sorted(failed, key=lambda record: record.ended))

    @property
    def causes(self) -> dict[str, int]:
        """How often each cause of failure occurred."""
        return dict(Counter(record.cause.value for record in self.records if record.cause))

    def window(self, start: float = -math.inf, end: float = math.inf) -> Window:
        """The figures of the requests that ended in `start <= t < end`."""
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
        """How many requests there were of each kind."""
        return dict(Counter(record.kind for record in self.records))

    def sightings(self, start: float = -math.inf, end: float = math.inf) -> tuple[Sighting, ...]:
        """Which versions answered the requests due in `start <= t < end`, in order of appearance."""
        times: dict[tuple[str, str, str], list[float]] = {}
        for record in self.records:
            if record.version and start <= record.due < end:
                times.setdefault((record.server, record.service, record.version), []).append(record.ended)
        seen = [Sighting(*key, len(ends), min(ends), max(ends)) for key, ends in times.items()]
        return tuple(sorted(seen, key=lambda sighting: sighting.first))

    def as_json(self) -> dict[str, Any]:
        """A form that JSON carries; `from_json` reads it."""
        return {
            "started": self.started,
            "ended": self.ended,
            "records": [_row(record) for record in self.records],
            "writes_acknowledged": self.writes_acknowledged,
            "lost": list(self.lost),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LoadResult:
        """What `as_json` wrote."""
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
    """The smallest latency that at least `share` of all do not exceed; 0 without any."""
    if not ordered:
        return 0.0
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)] * 1000, 1)
