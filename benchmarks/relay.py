"""A TCP relay on loopback that delays every byte, for machines whose kernel has no netem."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from threading import Event, Thread

_CHUNK = 65536


class Relay:
    """A relay with one loopback port per target. A new connection costs a round trip, each byte half of one."""

    def __init__(self, targets: Mapping[str, tuple[str, int]], rtt_seconds: float) -> None:
        self._targets, self._rtt = dict(targets), rtt_seconds
        self.ports: dict[str, int] = {}
        self._ready = Event()
        self._thread = Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Relay:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        servers = []
        try:
            for name, target in self._targets.items():
                servers.append(await self._listen(target))
                self.ports[name] = servers[-1].sockets[0].getsockname()[1]
        finally:
            self._ready.set()
        await self._stop.wait()
        for server in servers:
            server.close()

    async def _listen(self, target: tuple[str, int]) -> asyncio.Server:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # A handler that ends cancelled makes asyncio's own callback fail.
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._join(target, reader, writer)
            writer.transport.abort()

        return await asyncio.start_server(accept, "127.0.0.1", 0)

    async def _join(self, target: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward both directions until both have ended, or one failed."""
        await asyncio.sleep(self._rtt)
        far_reader, far_writer = await asyncio.open_connection(*target)
        try:
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
        finally:
            far_writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one direction in order. New bytes are read while earlier ones are still delayed."""
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def take() -> None:
            data = b"more"
            while data:
                data = await reader.read(_CHUNK)
                held.put_nowait((self._loop.time() + self._rtt / 2, data))

        async def give() -> None:
            while True:
                due, data = await held.get()
                await asyncio.sleep(due - self._loop.time())
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()

        await asyncio.gather(take(), give())
