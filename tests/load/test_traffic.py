"""The load counts each kind of server fault as a failure."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from lab.load.records import Kind, LoadResult
from lab.load.traffic import LoadProfile, Traffic, WorkerGroup
from lab.load.wire import Cause, Server
from tests.load.application import GOODBYE, LAST_CHUNK, PAGE, QUIET, TICK, Application, Exchange, Fault

KEPT = replace(QUIET, kept=WorkerGroup(1, 200))
FRESH = replace(QUIET, fresh=WorkerGroup(1, 200))
UPLOADS = replace(QUIET, uploads=WorkerGroup(1, 100))
SLOW = replace(QUIET, slow=WorkerGroup(1, 100))
STREAM = replace(QUIET, streams=1)


def run(mix: LoadProfile, app: Application) -> LoadResult:
    return asyncio.run(app.load(mix))


def run_with(mix: LoadProfile, path: str, fault: Fault, *, at: int = 2, enough: int = 4) -> LoadResult:
    async def load() -> LoadResult:
        return await Application(path, fault, at=at, enough=enough).load(mix)

    return asyncio.run(load())


async def close_silently(exchange: Exchange) -> None:
    exchange.answer(PAGE)
    exchange.close()


async def close_announced(exchange: Exchange) -> None:
    exchange.answer(PAGE, extra="Connection: close\r\n")
    exchange.close()


async def close_unanswered(exchange: Exchange) -> None:
    exchange.close()


async def reset(exchange: Exchange) -> None:
    exchange.reset()


async def short_body(exchange: Exchange) -> None:
    exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
    exchange.close()


async def short_chunks(exchange: Exchange) -> None:
    exchange.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    exchange.chunk(PAGE)
    exchange.close()


async def status_500(exchange: Exchange) -> None:
    exchange.answer(PAGE, "500 Internal Server Error")


async def other_page(exchange: Exchange) -> None:
    exchange.answer(b"<html>Welcome to nginx</html>")


async def hang(exchange: Exchange) -> None:
    exchange.app.stopping.set()


async def babble(exchange: Exchange) -> None:
    exchange.raw(b"hello\r\n\r\n")


async def say_more(exchange: Exchange) -> None:
    exchange.answer(PAGE)
    exchange.raw(b"and one more thing")


async def two_lengths(exchange: Exchange) -> None:
    exchange.answer(PAGE, extra="Content-Length: 3\r\n")


async def no_length(exchange: Exchange) -> None:
    exchange.raw(b"HTTP/1.1 200 OK\r\n\r\n" + PAGE)


@pytest.mark.parametrize(
    "fault,cause",
    [
        pytest.param(close_silently, Cause.CLOSED, id="closed after an answer without announcement"),
        pytest.param(close_unanswered, Cause.CLOSED, id="closed instead of an answer"),
        pytest.param(reset, Cause.RESET, id="reset"),
        pytest.param(short_body, Cause.SHORT_BODY, id="short body"),
        pytest.param(short_chunks, Cause.SHORT_BODY, id="no last chunk"),
        pytest.param(status_500, Cause.WRONG_STATUS, id="status 500"),
        pytest.param(other_page, Cause.WRONG_CONTENT, id="another page"),
        pytest.param(hang, Cause.TIMEOUT, id="hangs"),
        pytest.param(babble, Cause.MALFORMED, id="no HTTP"),
        pytest.param(say_more, Cause.MALFORMED, id="bytes nobody asked for"),
        pytest.param(two_lengths, Cause.MALFORMED, id="two lengths"),
        pytest.param(no_length, Cause.MALFORMED, id="no length"),
    ],
)
def test_kept_connection_one_irregularity_counts_one_failure(fault: Fault, cause: Cause) -> None:
    result = run_with(KEPT, "/", fault)

    assert result.causes == {cause.value: 1}


def test_kept_connection_announced_close_is_no_failure() -> None:
    result = run_with(KEPT, "/", close_announced)

    assert result.causes == {}


def test_kept_connection_without_fault_stays_one_connection() -> None:
    async def load() -> int:
        app = Application("/", enough=5)
        await app.load(KEPT)
        return app.connections

    assert asyncio.run(load()) == 1


def test_fresh_connections_each_request_opens_its_own() -> None:
    async def load() -> tuple[int, int]:
        app = Application("/", enough=3)
        result = await app.load(FRESH)
        return app.connections, len(result.records)

    connections, requests = asyncio.run(load())

    assert connections == requests


@pytest.mark.parametrize("fault,cause", [(reset, Cause.RESET), (close_unanswered, Cause.CLOSED)])
def test_fresh_connection_cut_counts_one_failure(fault: Fault, cause: Cause) -> None:
    result = run_with(FRESH, "/", fault)

    assert result.causes == {cause.value: 1}


def test_reader_after_a_failure_continues_with_its_next_request() -> None:
    result = run_with(KEPT, "/", reset, at=1, enough=3)

    assert next(record for record in result.records if record.due > result.failures[0].due).cause is None


def test_slow_request_wrong_status_counts_one_failure() -> None:
    result = run_with(SLOW, "/api/slow?seconds=2", status_500)

    assert [record.kind for record in result.failures] == [Kind.SLOW]


async def wrong_checksum(exchange: Exchange) -> None:
    exchange.app.acknowledge(exchange, "other", b"something else")


async def lose(exchange: Exchange) -> None:
    exchange.app.acknowledge(exchange, "lost", exchange.body)


async def damage(exchange: Exchange) -> None:
    exchange.app.uploads["damaged"] = exchange.body[:-1]
    exchange.app.acknowledge(exchange, "damaged", exchange.body)


async def repeat_id(exchange: Exchange) -> None:
    exchange.app.acknowledge(exchange, "1", exchange.body)


def test_uploads_without_fault_are_all_acknowledged_and_read_back() -> None:
    result = run(UPLOADS, Application("/api/uploads"))

    assert (result.writes_acknowledged, result.writes_lost, result.causes) == (4, 0, {})
    assert result.kinds() == {Kind.UPLOAD: 4, Kind.READ_BACK: 4}


@pytest.mark.parametrize("fault", [wrong_checksum, repeat_id])
def test_upload_wrong_receipt_is_a_failure_and_not_acknowledged(fault: Fault) -> None:
    result = run_with(UPLOADS, "/api/uploads", fault)

    assert result.causes == {Cause.WRONG_CONTENT.value: 1}
    assert (result.writes_acknowledged, result.writes_lost) == (3, 0)


@pytest.mark.parametrize("fault,cause", [(lose, Cause.WRONG_STATUS), (damage, Cause.WRONG_CONTENT)])
def test_upload_acknowledged_but_not_stored_counts_as_lost(fault: Fault, cause: Cause) -> None:
    result = run_with(UPLOADS, "/api/uploads", fault)

    assert (result.writes_acknowledged, result.writes_lost) == (4, 1)
    assert [(record.kind, record.cause) for record in result.failures] == [(Kind.READ_BACK, cause)]


async def cut_stream(exchange: Exchange) -> None:
    exchange.begin_stream()
    exchange.chunk(TICK)
    exchange.close()


async def end_stream_without_goodbye(exchange: Exchange) -> None:
    exchange.begin_stream()
    exchange.chunk(TICK)
    exchange.raw(LAST_CHUNK)


async def end_stream_with_goodbye(exchange: Exchange) -> None:
    exchange.begin_stream()
    exchange.chunk(TICK)
    exchange.chunk(GOODBYE)
    exchange.raw(LAST_CHUNK)
    exchange.close()


async def go_silent(exchange: Exchange) -> None:
    exchange.begin_stream()
    exchange.chunk(TICK)


@pytest.mark.parametrize(
    "fault,cause",
    [
        (cut_stream, Cause.STREAM_CUT),
        (end_stream_without_goodbye, Cause.STREAM_CUT),
        (go_silent, Cause.STREAM_SILENT),
        (status_500, Cause.WRONG_STATUS),
    ],
)
def test_stream_bad_end_counts_one_failure_and_reconnects(fault: Fault, cause: Cause) -> None:
    result = run_with(STREAM, "/api/stream", fault, at=1, enough=2)

    assert [record.cause for record in result.records] == [cause, None]


def test_stream_goodbye_then_end_is_no_failure() -> None:
    result = run_with(STREAM, "/api/stream", end_stream_with_goodbye, at=1, enough=2)

    assert [record.cause for record in result.records] == [None, None]


def test_refused_connection_counts_every_request() -> None:
    async def load() -> LoadResult:
        stopping = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, stopping.set)
        return await Traffic([Server("web1", "127.0.0.1", 1)], "app.test", KEPT).run(stopping)

    result = asyncio.run(load())

    assert result.records
    assert result.causes == {Cause.REFUSED.value: len(result.records)}
