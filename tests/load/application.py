"""A small application on a loopback socket that answers as the sample application does, with one fault.

The fault replaces the answer to one request on one path. The load is told to stop once `enough` requests for
that path have come, so that no test has to wait for a clock.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lab.load.records import LoadResult
from lab.load.traffic import LoadProfile, Traffic, WorkerGroup
from lab.load.wire import Server

PAGE = b'<html><strong id="version">v1</strong></html>'
TICK = b"event: tick\ndata: {}\n\n"
GOODBYE = b"event: goodbye\ndata: {}\n\n"
LAST_CHUNK = b"0\r\n\r\n"
NO_WORKERS = WorkerGroup(0, 1)
QUIET = LoadProfile(NO_WORKERS, NO_WORKERS, NO_WORKERS, NO_WORKERS, streams=0, timeout_seconds=0.3, silence_seconds=0.3)


@dataclass
class Exchange:
    """One request at the server, and methods that answer it in different ways."""

    app: Application
    method: str
    path: str
    body: bytes
    writer: asyncio.StreamWriter

    def answer(self, body: bytes, status: str = "200 OK", extra: str = "") -> None:
        """Send a complete answer with a length."""
        self.raw(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body)

    def raw(self, data: bytes) -> None:
        """Send raw bytes."""
        self.writer.write(data)

    def close(self) -> None:
        """Close the connection with a FIN."""
        self.writer.close()

    def reset(self) -> None:
        """Close the connection with a RST."""
        channel = self.writer.get_extra_info("socket")
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def begin_stream(self) -> None:
        """Send the head of an event stream."""
        self.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        """Send one chunk of a stream."""
        self.raw(f"{len(data):x}\r\n".encode() + data + b"\r\n")


Fault = Callable[[Exchange], Awaitable[None]]


class Application:
    """The server; `fault` takes over request number `at` for `path`."""

    def __init__(self, path: str = "", fault: Fault | None = None, *, at: int = 2, enough: int = 4) -> None:
        self.path = path
        self.fault = fault
        self.at = at
        self.enough = enough
        self.uploads: dict[str, bytes] = {}
        self.seen: Counter[str] = Counter()
        self.connections = 0
        self.stopping = asyncio.Event()
        self._open: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until it is closed."""
        self.connections += 1
        self._open.append(writer)
        try:
            while not writer.is_closing():
                await self._respond(await _next_request(self, reader, writer))
                if not writer.is_closing():
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _respond(self, exchange: Exchange) -> None:
        path = exchange.path
        self.seen[path] += 1
        if path == self.path and self.seen[path] >= self.enough:
            self.stopping.set()
        if self.fault is not None and path == self.path and self.seen[path] == self.at:
            await self.fault(exchange)
        else:
            await self.proper(exchange)

    async def proper(self, exchange: Exchange) -> None:
        """Answer as the sample application does."""
        if exchange.path == "/":
            exchange.answer(PAGE)
        elif exchange.path == "/api/version":
            exchange.answer(b'{"version": "v1"}')
        elif exchange.path in ("/health", "/api/health"):
            exchange.answer(b'{"status": "ok"}')
        elif exchange.path.startswith("/api/slow"):
            exchange.answer(b'{"slept": 2.0}')
        elif exchange.path == "/api/stream":
            await self.stream(exchange)
        elif exchange.method == "POST":
            name = str(self.seen[exchange.path])
            self.uploads[name] = exchange.body
            self.acknowledge(exchange, name, exchange.body)
        elif (content := self.uploads.get(exchange.path.rpartition("/")[2])) is not None:
            exchange.answer(content)
        else:
            exchange.answer(b"{}", "404 Not Found")

    def acknowledge(self, exchange: Exchange, name: str, content: bytes) -> None:
        """Acknowledge an upload."""
        receipt = {"id": name, "sha256": hashlib.sha256(content).hexdigest()}
        exchange.answer(json.dumps(receipt).encode(), "201 Created")

    async def stream(self, exchange: Exchange) -> None:
        """Send ticks until the client disconnects."""
        exchange.begin_stream()
        while not exchange.writer.is_closing():
            exchange.chunk(TICK)
            await exchange.writer.drain()
            await asyncio.sleep(0.05)

    async def load(self, mix: LoadProfile) -> LoadResult:
        """Serve, and load this server until enough requests have arrived."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(20):
            result = await Traffic([Server("web1", "127.0.0.1", port)], "app.test", mix).run(self.stopping)
        server.close()
        self.close()
        await server.wait_closed()
        return result

    def close(self) -> None:
        """Close every open connection."""
        for writer in self._open:
            writer.close()


async def _next_request(app: Application, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    method, path, _ = head.split("\r\n")[0].split(" ")
    length = next((line[15:] for line in head.split("\r\n") if line.startswith("Content-Length:")), "0")
    return Exchange(app, method, path, await reader.readexactly(int(length)), writer)
