"""A TCP relay on loopback that delays every byte, for machines whose kernel has no netem. It alters nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from threading import Event, Thread

_CHUNK = 65536


class Relay:
    """Listens on loopback, one port per target, and passes bytes on after half the round-trip time each way."""

    def __init__(self, targets: Mapping[str, tuple[str, int]], rtt_seconds: float) -> None:
        self._targets, self._delay = dict(targets), rtt_seconds / 2
        self.ports: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()
        self._ready = Event()
        self._thread = Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        servers = self._loop.run_until_complete(self._listen())
        self._ready.set()
        self._loop.run_forever()
        for server in servers:
            server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _listen(self) -> list[asyncio.Server]:
        servers = []
        for name, (address, port) in self._targets.items():

            async def accept(
                reader: asyncio.StreamReader,
                writer: asyncio.StreamWriter,
                address: str = address,
                port: int = port,
            ) -> None:
                far_reader, far_writer = await asyncio.open_connection(address, port)
                try:
                    await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
                finally:
                    writer.transport.abort()
                    far_writer.transport.abort()

            server = await asyncio.start_server(accept, "127.0.0.1", 0)
            self.ports[name] = server.sockets[0].getsockname()[1]
            servers.append(server)
        return servers

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Bytes in their order, each piece held back for the delay; pieces travel while others wait."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def send() -> None:
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            writer.close()

        sender = asyncio.ensure_future(send())
        with contextlib.suppress(ConnectionError):
            while True:
                data = await reader.read(_CHUNK)
                await queue.put((self._loop.time() + self._delay, data))
                if not data:
                    await sender
                    return
