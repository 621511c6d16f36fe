"""Workers that send requests to every server at fixed rates and record each request. None is retried.

A worker keeps its schedule while the server is slow: after a late answer it sends the requests that became due in the
meantime. So the load stays bounded, and a stall shows in the latencies.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from lab.load import expect
from lab.load.expect import ServedBy, Write
from lab.load.records import Kind, LoadResult, Record
from lab.load.wire import Cause, Client, RequestFailed, Server

UPLOAD_BYTES = (1_000, 200_000)
READ_BACK_CLIENTS = 4
STREAM_PAUSE_SECONDS = 0.2
#: A worker skips requests that are delayed by more than this.
MAX_DELAY_SECONDS = 1.0


@dataclass(frozen=True)
class WorkerGroup:
    """Workers of one kind, and the rate of each in requests per second."""

    workers: int
    rate: float


@dataclass(frozen=True)
class LoadProfile:
    """The load on one server, about 175 requests per second by default, and the client's timeouts.

    Without `keep_alive` each request uses a new connection, because a reload of Nginx closes idle ones.
    """

    kept: WorkerGroup = WorkerGroup(8, 15)
    fresh: WorkerGroup = WorkerGroup(4, 12)
    uploads: WorkerGroup = WorkerGroup(2, 3)
    slow: WorkerGroup = WorkerGroup(2, 0.4)
    streams: int = 1
    timeout_seconds: float = 10.0
    silence_seconds: float = 5.0
    keep_alive: bool = True

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LoadProfile:
        """Read the values of `dataclasses.asdict`."""
        groups = {name: WorkerGroup(**data[name]) for name in ("kept", "fresh", "uploads", "slow")}
        return cls(**{**data, **groups})


class Traffic:
    """One load run: its workers, their records, and their acknowledged writes."""

    def __init__(
        self,
        servers: Sequence[Server],
        domain: str,
        mix: LoadProfile,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers = tuple(servers)
        self._domain = domain
        self._mix = mix
        self._clock = clock
        self._records: list[Record] = []
        self._writes: dict[tuple[str, str], Write] = {}
        self._lost: list[str] = []

    @property
    def requests(self) -> int:
        """The number of requests so far."""
        return len(self._records)

    @property
    def failed(self) -> int:
        """The number of failed requests so far."""
        return sum(1 for record in self._records if record.cause)

    async def run(self, stopping: asyncio.Event) -> LoadResult:
        """Load the servers until `stopping` is set, wait for open requests, and read every write back."""
        started = self._clock()
        streams = [asyncio.create_task(work) for work in self._stream_workers()]
        workers = [asyncio.create_task(work) for work in self._request_workers(stopping)]
        await stopping.wait()
        await asyncio.gather(*workers)
        for stream in streams:
            stream.cancel()
        for outcome in await asyncio.gather(*streams, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        ended = self._clock()
        await asyncio.gather(*(self._read_back(server) for server in self._servers))
        return LoadResult(started, ended, tuple(self._records), len(self._writes), tuple(self._lost))

    def _stream_workers(self) -> Iterator[Coroutine[None, None, None]]:
        for server in self._servers:
            for _ in range(self._mix.streams):
                yield self._follow(server)

    def _request_workers(self, stopping: asyncio.Event) -> Iterator[Coroutine[None, None, None]]:
        mix = self._mix
        for server in self._servers:
            for crew, kind, keeps, job in (
                (mix.kept, Kind.KEPT, (True,), self._reader),
                (mix.fresh, Kind.FRESH, (False,), self._reader),
                (mix.uploads, Kind.UPLOAD, (True, False), self._uploader),
                (mix.slow, Kind.SLOW, (True, False), self._slow_asker),
            ):
                for number, keep in zip(range(crew.workers), cycle(keeps), strict=False):
                    pace = self._pace(crew, number, stopping)
                    yield self._work(server, kind, pace, job(server, self._client(server, keep=keep)))

    def _client(self, server: Server, *, keep: bool) -> Client:
        return Client(
            server, self._domain, keep=keep and self._mix.keep_alive, timeout_seconds=self._mix.timeout_seconds
        )

    async def _pace(self, crew: WorkerGroup, number: int, stopping: asyncio.Event) -> AsyncIterator[float]:
        """Yield the scheduled time of each request when it is due. The workers of a group take turns."""
        interval = 1 / crew.rate
        due = self._clock() + interval * number / crew.workers
        while True:
            await asyncio.sleep(max(0.0, due - self._clock()))
            if stopping.is_set():
                return
            yield due
            due = max(due + interval, self._clock() - MAX_DELAY_SECONDS)

    async def _work(self, server: Server, kind: Kind, pace: AsyncIterator[float], job: Job) -> None:
        async for due in pace:
            await self._attempt(server, kind, due, job.ask)
        job.client.close()

    async def _attempt(
        self, server: Server, kind: Kind, due: float, ask: Callable[[], Awaitable[ServedBy]]
    ) -> RequestFailed | None:
        try:
            served, failure = await ask(), None
        except RequestFailed as error:
            served, failure = ServedBy(), error
        self._record(server, kind, due, served, failure)
        return failure

    def _record(
        self, server: Server, kind: Kind, due: float, served: ServedBy, failure: RequestFailed | None = None
    ) -> None:
        self._records.append(
            Record(
                due=due,
                latency=self._clock() - due,
                kind=kind,
                server=server.name,
                service=served.service,
                version=served.version,
                cause=failure.cause if failure else None,
                detail=failure.detail if failure else "",
            )
        )

    def _reader(self, _server: Server, client: Client) -> Job:
        paths = cycle(expect.READ_PATHS)

        async def ask() -> ServedBy:
            path = next(paths)
            return expect.read(path, await client.fetch("GET", path))

        return Job(client, ask)

    def _slow_asker(self, _server: Server, client: Client) -> Job:
        async def ask() -> ServedBy:
            return expect.slow(await client.fetch("GET", expect.SLOW))

        return Job(client, ask)

    def _uploader(self, server: Server, client: Client) -> Job:
        async def ask() -> ServedBy:
            least, most = UPLOAD_BYTES
            body = secrets.token_bytes(least + secrets.randbelow(most - least + 1))
            write = expect.upload(server.name, body, await client.fetch("POST", expect.UPLOADS, body))
            if (write.server, write.id) in self._writes:
                raise RequestFailed(Cause.WRONG_CONTENT, f"{write} was acknowledged before, for other content")
            self._writes[write.server, write.id] = write
            return ServedBy()

        return Job(client, ask)

    async def _follow(self, server: Server) -> None:
        """Keep one event stream open; it ends only when this task is cancelled."""
        client = self._client(server, keep=True)
        while True:
            started_at = self._clock()
            try:
                await self._attempt(server, Kind.STREAM, started_at, lambda: self._until_goodbye(client))
            except asyncio.CancelledError:
                self._record(server, Kind.STREAM, started_at, ServedBy())
                raise
            finally:
                client.close()
            await asyncio.sleep(STREAM_PAUSE_SECONDS)

    async def _until_goodbye(self, client: Client) -> ServedBy:
        """Follow the stream until the server sends goodbye. Any other end, and silence, is a failure."""
        silence = self._mix.silence_seconds
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(silence) as patience:
                head = await client.start("GET", expect.STREAM)
                if head.status != 200:
                    raise RequestFailed(Cause.WRONG_STATUS, f"{head.status} instead of 200")
                async with aclosing(client.pieces(head)) as pieces:
                    async for line in _lines(pieces):
                        if line == b"event: goodbye":
                            return ServedBy()
                        if line.startswith(b"data:"):
                            patience.reschedule(loop.time() + silence)
        except TimeoutError:
            raise RequestFailed(Cause.STREAM_SILENT, f"no event for {silence:g} s") from None
        except RequestFailed as error:
            if error.cause in (Cause.SHORT_BODY, Cause.RESET):
                raise RequestFailed(Cause.STREAM_CUT, error.detail) from error
            raise
        raise RequestFailed(Cause.STREAM_CUT, "ended as if complete")

    async def _read_back(self, server: Server) -> None:
        """Request every acknowledged write by its id. A write that does not come back unchanged is lost."""
        waiting = iter([write for write in self._writes.values() if write.server == server.name])
        await asyncio.gather(*(self._compare(server, waiting) for _ in range(READ_BACK_CLIENTS)))

    async def _compare(self, server: Server, waiting: Iterator[Write]) -> None:
        client = self._client(server, keep=True)
        for write in waiting:

            async def ask(write: Write = write) -> ServedBy:
                return expect.read_back(write, await client.fetch("GET", f"{expect.UPLOADS}/{write.id}"))

            if failure := await self._attempt(server, Kind.READ_BACK, self._clock(), ask):
                self._lost.append(f"{write}: {failure}")
        client.close()


@dataclass(frozen=True)
class Job:
    """A worker's request function and its client."""

    client: Client
    ask: Callable[[], Awaitable[ServedBy]]


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")
