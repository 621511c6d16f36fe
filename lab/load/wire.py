"""A strict HTTP/1.1 client over plain sockets, without retries, redirects or automatic reconnects.

A server may close a connection only after it announced it with `Connection: close`. Every other deviation raises
`RequestFailed` with its cause.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from enum import StrEnum

LINE_LIMIT_BYTES = 16_384
PIECE_BYTES = 65_536


class Cause(StrEnum):
    """The cause of a failed request."""

    REFUSED = "connection refused"
    RESET = "connection reset"
    CLOSED = "closed without announcing it"
    UNREACHABLE = "unreachable"
    TIMEOUT = "time-out"
    MALFORMED = "not proper HTTP"
    SHORT_BODY = "short body"
    WRONG_STATUS = "wrong status"
    WRONG_CONTENT = "wrong content"
    STREAM_CUT = "stream cut without goodbye"
    STREAM_SILENT = "stream fell silent"


class RequestFailed(Exception):
    """A request whose answer violates HTTP or the application's contract."""

    def __init__(self, cause: Cause, detail: str = "") -> None:
        super().__init__(f"{cause.value}: {detail}" if detail else cause.value)
        self.cause = cause
        self.detail = detail

    @classmethod
    def of(cls, error: OSError) -> RequestFailed:
        """Convert an error of the operating system."""
        if isinstance(error, ConnectionRefusedError):
            return cls(Cause.REFUSED)
        if isinstance(error, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)):
            return cls(Cause.RESET)
        if isinstance(error, TimeoutError):
            return cls(Cause.TIMEOUT)
        return cls(Cause.UNREACHABLE, str(error))


@dataclass(frozen=True)
class Server:
    """The target of requests: a name for the records, and an address."""

    name: str
    address: str
    port: int = 80


@dataclass(frozen=True)
class Head:
    """The status and headers of an answer. Names are in lower case, repeated headers are joined by a comma."""

    status: int
    version: str
    headers: Mapping[str, str]

    @property
    def closes(self) -> bool:
        """Whether the server closes the connection after this answer."""
        options = {option.strip().lower() for option in self.headers.get("connection", "").split(",")}
        return "close" in options or (self.version == "HTTP/1.0" and "keep-alive" not in options)

    @property
    def chunked(self) -> bool:
        """Whether the body is chunked."""
        return self.headers.get("transfer-encoding", "").strip().lower() == "chunked"

    @property
    def length(self) -> int | None:
        """The length of the body in bytes, if announced. Raises RequestFailed for an invalid one."""
        text = self.headers.get("content-length")
        if text is None:
            return None
        if self.chunked or not (text.isascii() and text.isdigit()):
            raise RequestFailed(Cause.MALFORMED, f"Content-Length: {text[:40]!r}")
        return int(text)


@dataclass(frozen=True)
class Answer:
    """A complete answer."""

    head: Head
    body: bytes


class Connection:
    """One TCP connection for consecutive requests. Its methods raise RequestFailed and OSError."""

    def __init__(self, channel: socket.socket) -> None:
        self._socket = channel
        self._received = bytearray()
        self.answers = 0

    @classmethod
    async def open(cls, server: Server) -> Connection:
        """Connect to the server."""
        family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
        channel = socket.socket(family, socket.SOCK_STREAM)
        channel.setblocking(False)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().sock_connect(channel, (server.address, server.port))
        except BaseException:
            channel.close()
            raise
        return cls(channel)

    def close(self) -> None:
        """End the connection from this side."""
        self._socket.close()

    async def send(self, request: bytes) -> Head:
        """Send a whole request and read the head of its answer."""
        self._check_quiet()
        await asyncio.get_running_loop().sock_sendall(self._socket, request)
        head = await self._head()
        while 100 <= head.status < 200:
            head = await self._head()
        self.answers += 1
        return head

    async def body(self, head: Head) -> AsyncGenerator[bytes, None]:
        """The body piece by piece, as it arrives; it ends exactly where the head says."""
        if head.chunked:
            async for piece in self._chunks():
                yield piece
        elif head.length is not None:
            async for piece in self._exactly(head.length):
                yield piece
        elif head.closes:
            while self._received or await self._receive():
                yield self._take(len(self._received))
        else:
            raise RequestFailed(Cause.MALFORMED, "neither Content-Length, chunked encoding nor Connection: close")

    def _check_quiet(self) -> None:
        """Refuse to reuse a connection on which something happened since the last answer."""
        if not self._received:
            try:
                self._received += self._socket.recv(PIECE_BYTES)
            except BlockingIOError:
                return
            if not self._received:
                raise RequestFailed(Cause.CLOSED, f"idle after {self.answers} answers")
        raise RequestFailed(Cause.MALFORMED, f"{len(self._received)} bytes without a request")

    async def _receive(self) -> bool:
        piece = await asyncio.get_running_loop().sock_recv(self._socket, PIECE_BYTES)
        self._received += piece
        return bool(piece)

    def _take(self, size: int) -> bytes:
        piece = bytes(self._received[:size])
        del self._received[:size]
        return piece

    async def _line(self, at_end: RequestFailed) -> str:
        while (end := self._received.find(b"\r\n")) < 0:
            if len(self._received) > LINE_LIMIT_BYTES:
                raise RequestFailed(Cause.MALFORMED, "a line without an end")
            if not await self._receive():
                raise at_end
        line = self._take(end)
        self._take(2)
        return line.decode("latin-1")

    async def _head(self) -> Head:
        seen = "before the answer" if not self.answers else f"instead of answer {self.answers + 1}"
        status_line = await self._line(RequestFailed(Cause.CLOSED, seen))
        version, _, rest = status_line.partition(" ")
        if version not in ("HTTP/1.1", "HTTP/1.0") or not (rest[:3].isdigit() and len(rest[:3]) == 3):
            raise RequestFailed(Cause.MALFORMED, f"status line {status_line[:60]!r}")
        headers: dict[str, str] = {}
        while line := await self._line(RequestFailed(Cause.CLOSED, "inside the headers")):
            name, colon, value = line.partition(":")
            if not colon or name != name.strip():
                raise RequestFailed(Cause.MALFORMED, f"header {line[:60]!r}")
            key = name.lower()
            headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
        return Head(int(rest[:3]), version, headers)

    async def _exactly(self, size: int) -> AsyncGenerator[bytes, None]:
        missing = size
        while missing:
            if not self._received and not await self._receive():
                raise RequestFailed(Cause.SHORT_BODY, f"{size - missing} of {size} bytes")
            piece = self._take(min(missing, len(self._received)))
            missing -= len(piece)
            yield piece

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        cut = RequestFailed(Cause.SHORT_BODY, "ended before the last chunk")
        while True:
            line = await self._line(cut)
            digits = line.partition(";")[0].strip()
            if not digits or set(digits) - set("0123456789abcdefABCDEF"):
                raise RequestFailed(Cause.MALFORMED, f"chunk size {line[:40]!r}")
            size = int(digits, 16)
            if size == 0:
                break
            async for piece in self._exactly(size):
                yield piece
            if await self._line(cut):
                raise RequestFailed(Cause.MALFORMED, "a chunk longer than its declared size")
        while await self._line(cut):
            pass


class Client:
    """Sends requests to one server over one kept connection or over new ones, without retries."""

    def __init__(self, server: Server, domain: str, *, keep: bool, timeout_seconds: float) -> None:
        self._server = server
        self._domain = domain
        self._keep = keep
        self._timeout_seconds = timeout_seconds
        self._connection: Connection | None = None

    async def fetch(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Send a request and read the answer within the timeout. Raises RequestFailed and closes the connection."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                head = await self.start(method, path, body)
                content = b"".join([piece async for piece in self.pieces(head)])
        except TimeoutError:
            self.close()
            raise RequestFailed(Cause.TIMEOUT, f"{method} {path} after {self._timeout_seconds:g} s") from None
        if head.closes or not self._keep:
            self.close()
        return Answer(head, content)

    async def start(self, method: str, path: str, body: bytes = b"") -> Head:
        """Send a request and read the head of the answer, without a timeout. Raises RequestFailed."""
        try:
            if self._connection is None:
                self._connection = await Connection.open(self._server)
            return await self._connection.send(self._request(method, path, body))
        except OSError as error:
            self.close()
            raise RequestFailed.of(error) from error
        except RequestFailed:
            self.close()
            raise

    async def pieces(self, head: Head) -> AsyncGenerator[bytes, None]:
        """Yield the body of the answer of `start` while it arrives. Raises RequestFailed."""
        if self._connection is None:
            return
        try:
            async for piece in self._connection.body(head):
                yield piece
        except OSError as error:
            self.close()
            raise RequestFailed.of(error) from error
        except RequestFailed:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _request(self, method: str, path: str, body: bytes) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._domain}", "Accept: */*"]
        if not self._keep:
            lines.append("Connection: close")
        if method == "POST":
            lines += [f"Content-Length: {len(body)}", "Content-Type: application/octet-stream"]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + body
