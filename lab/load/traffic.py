"""The visitors: paced workers that load every server at once and record each request. None is repeated.

A worker keeps to its pace whatever the server does: late answers are followed by the requests that became due
meanwhile, so the offered load stays bounded and a stall shows in the latencies.
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
from lab.load.expect import Served, Write
from lab.load.records import Kind, LoadResult, Record
from lab.load.wire import Cause, Client, Irregular, Server

UPLOAD_BYTES = (1_000, 200_000)
READ_BACK_CLIENTS = 4
STREAM_PAUSE_SECONDS = 0.2
#: A worker that fell behind by more than this gives up the requests before it.
MOST_BEHIND_SECONDS = 1.0


@dataclass(frozen=True)
class Crew:
    """Workers of one kind and how often each of them sends, in requests per second."""

    workers: int
    rate: float


@dataclass(frozen=True)
class Mix:
    """The load on one server (about 175 requests per second as it stands) and the client's patience.

    Without `keep_alive` each request has a connection of its own: a reload of Nginx ends idle ones.
    """

    kept: Crew = Crew(8, 15)
    fresh: Crew = Crew(4, 12)
    uploads: Crew = Crew(2, 3)
    slow: Crew = Crew(2, 0.4)
    streams: int = 1
    timeout_seconds: float = 10.0
    silence_seconds: float = 5.0
    keep_alive: bool = True

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Mix:
        """What `dataclasses.asdict` made of a mix."""
        crews = {name: Crew(**data[name]) for name in ("kept", "fresh", "uploads", "slow")}
        return cls(**{**data, **crews})


class Traffic:
    """One load run: its workers, what they recorded, and the writes that were acknowledged to them."""

    def __init__(
        self,
        servers: Sequence[Server],
        domain: str,
        mix: Mix,
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
        """Requests so far."""
        return len(self._records)

    @property
    def failed(self) -> int:
        """Failed requests so far."""
        return sum(1 for record in self._records if record.cause)

    async def run(self, stopping: asyncio.Event) -> LoadResult:
        """Load the servers until `stopping` is set, let what is under way end, then read every write back."""
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

    async def _pace(self, crew: Crew, number: int, stopping: asyncio.Event) -> AsyncIterator[float]:
        """When this worker's requests are due, each yielded at its time; workers of a crew take turns."""
        interval = 1 / crew.rate
        due = self._clock() + interval * number / crew.workers
        while True:
            await asyncio.sleep(max(0.0, due - self._clock()))
            if stopping.is_set():
                return
            yield due
            due = max(due + interval, self._clock() - MOST_BEHIND_SECONDS)

    async def _work(self, server: Server, kind: Kind, pace: AsyncIterator[float], job: Job) -> None:
        async for due in pace:
            await self._attempt(server, kind, due, job.ask)
        job.client.close()

    async def _attempt(
        self, server: Server, kind: Kind, due: float, ask: Callable[[], Awaitable[Served]]
    ) -> Irregular | None:
        try:
            served, failure = await ask(), None
        except Irregular as irregular:
            served, failure = Served(), irregular
        self._record(server, kind, due, served, failure)
        return failure

    def _record(self, server: Server, kind: Kind, due: float, served: Served, failure: Irregular | None = None) -> None:
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

        async def ask() -> Served:
            path = next(paths)
            return expect.read(path, await client.fetch("GET", path))

        return Job(client, ask)

    def _slow_asker(self, _server: Server, client: Client) -> Job:
        async def ask() -> Served:
            return expect.slow(await client.fetch("GET", expect.SLOW))

        return Job(client, ask)

    def _uploader(self, server: Server, client: Client) -> Job:
        async def ask() -> Served:
            least, most = UPLOAD_BYTES
            body = secrets.token_bytes(least + secrets.randbelow(most - least + 1))
            write = expect.upload(server.name, body, await client.fetch("POST", expect.UPLOADS, body))
            if (write.server, write.id) in self._writes:
                raise Irregular(Cause.WRONG_CONTENT, f"{write} was acknowledged before, for other content")
            self._writes[write.server, write.id] = write
            return Served()

        return Job(client, ask)

    async def _follow(self, server: Server) -> None:
        """Keep one event stream open; it ends only when this task is cancelled."""
        client = self._client(server, keep=True)
        while True:
            begun = self._clock()
            try:
                await self._attempt(server, Kind.STREAM, begun, lambda: self._until_goodbye(client))
            except asyncio.CancelledError:
                self._record(server, Kind.STREAM, begun, Served())
                raise
            finally:
                client.close()
            await asyncio.sleep(STREAM_PAUSE_SECONDS)

    async def _until_goodbye(self, client: Client) -> Served:
        """Follow the stream until the server says goodbye; any other end and any silence is irregular."""
        silence = self._mix.silence_seconds
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(silence) as patience:
                head = await client.start("GET", expect.STREAM)
                if head.status != 200:
                    raise Irregular(Cause.WRONG_STATUS, f"{head.status} instead of 200")
                async with aclosing(client.pieces(head)) as pieces:
                    async for line in _lines(pieces):
                        if line == b"event: goodbye":
                            return Served()
                        if line.startswith(b"data:"):
                            patience.reschedule(loop.time() + silence)
        except TimeoutError:
            raise Irregular(Cause.STREAM_SILENT, f"no event for {silence:g} s") from None
        except Irregular as irregular:
            if irregular.cause in (Cause.SHORT_BODY, Cause.RESET):
                raise Irregular(Cause.STREAM_CUT, irregular.detail) from irregular
            raise
        raise Irregular(Cause.STREAM_CUT, "ended as if complete")

    async def _read_back(self, server: Server) -> None:
        """Ask for every acknowledged write by its id; what does not come back as it was sent is lost."""
        waiting = iter([write for write in self._writes.values() if write.server == server.name])
        await asyncio.gather(*(self._compare(server, waiting) for _ in range(READ_BACK_CLIENTS)))

    async def _compare(self, server: Server, waiting: Iterator[Write]) -> None:
        client = self._client(server, keep=True)
        for write in waiting:

            async def ask(write: Write = write) -> Served:
                return expect.read_back(write, await client.fetch("GET", f"{expect.UPLOADS}/{write.id}"))

            if failure := await self._attempt(server, Kind.READ_BACK, self._clock(), ask):
                self._lost.append(f"{write}: {failure}")
        client.close()


@dataclass(frozen=True)
class Job:
    """What a worker does each time, and the client that it does it with."""

    client: Client
    ask: Callable[[], Awaitable[Served]]


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")
