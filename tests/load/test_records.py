"""The figures computed from records."""

from __future__ import annotations

import json

from lab.load.records import Kind, LoadResult, Record
from lab.load.wire import Cause


def result_of(*records: Record) -> LoadResult:
    return LoadResult(0.0, 100.0, records, writes_acknowledged=3, lost=("web1: upload 7: gone",))


def read(due: float, latency: float = 0.01, version: str = "", cause: Cause | None = None) -> Record:
    return Record(due, latency, Kind.KEPT, "web1", "backend" if version else "", version, cause)


def test_window_counts_requests_by_when_they_ended() -> None:
    result = result_of(read(1.0, 0.5), read(1.9, 0.2), read(2.5, 0.5))

    assert result.window(2.0, 3.0).requests == 1


def test_windows_side_by_side_count_each_request_once() -> None:
    result = result_of(*(read(number * 0.1, 0.1) for number in range(100)))

    parts = [result.window(start, start + 2.5).requests for start in (0.0, 2.5, 5.0, 7.5, 10.0)]

    assert sum(parts) == 100


def test_window_percentiles_of_known_latencies_are_exact() -> None:
    window = result_of(*(read(1.0, number / 1000) for number in range(1, 101))).window()

    assert (window.p50_ms, window.p99_ms, window.max_ms) == (50.0, 99.0, 100.0)


def test_window_without_requests_has_zero_latency() -> None:
    assert result_of().window().p99_ms == 0.0


def test_window_leaves_slow_requests_and_streams_out_of_latencies() -> None:
    window = result_of(
        read(1.0, 0.02), Record(1.0, 2.0, Kind.SLOW, "web1"), Record(1.0, 60.0, Kind.STREAM, "web1")
    ).window()

    assert (window.requests, window.max_ms) == (3, 20.0)


def test_failures_are_ordered_by_when_they_failed() -> None:
    late = read(1.0, 10.0, cause=Cause.TIMEOUT)
    early = read(2.0, 0.1, cause=Cause.RESET)

    assert result_of(late, read(3.0), early).failures == (early, late)


def test_sightings_name_each_version_with_first_and_last_time() -> None:
    result = result_of(read(1.0, 0.0, "v1"), read(2.0, 0.0, "v1"), read(3.0, 0.0, "v2"))

    seen = [(sighting.version, sighting.answers, sighting.first, sighting.last) for sighting in result.sightings()]

    assert seen == [("v1", 2, 1.0, 2.0), ("v2", 1, 3.0, 3.0)]


def test_sightings_after_a_moment_leave_out_requests_due_before_it() -> None:
    result = result_of(read(1.0, 5.0, "v1"), read(3.0, 0.0, "v2"))

    assert [sighting.version for sighting in result.sightings(2.0)] == ["v2"]


def test_result_survives_a_json_round_trip() -> None:
    result = result_of(read(1.0, version="v1"), Record(2.0, 1.0, Kind.UPLOAD, "web2", cause=Cause.RESET, detail="x"))

    assert LoadResult.from_json(json.loads(json.dumps(result.as_json()))) == result
