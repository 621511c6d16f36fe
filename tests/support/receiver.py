"""HTTP servers on loopback that record requests and validate them as Slack does, and servers that misbehave."""

from __future__ import annotations

import errno
import json
import re
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

#: One response of a receiver: status, headers, text.
Reply = tuple[int, Mapping[str, str], str]
GOOD: Reply = (200, {}, "ok")


@dataclass
class Received:
    """One received request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """A server with a list of replies, of which the last one repeats. `judge` returns a reason to refuse a request."""

    replies: Sequence[Reply] = (GOOD,)
    judge: Callable[[Received], str] = lambda _: ""
    port: int = 0
    scheme: str = "http"
    address: str = "127.0.0.1"
    requests: list[Received] = field(default_factory=list)

    def url(self, path: str = "/services/T00000001/B00000001/q7Zk1m9pX2vB8nW4sL6t") -> str:
        return f"{self.scheme}://{self.address}:{self.port}{path}"

    def answer(self, request: Received) -> Reply:
        self.requests.append(request)
        problem = self.judge(request)
        if problem:
            return 400, {}, problem
        return self.replies[min(len(self.requests), len(self.replies)) - 1]


@contextmanager
def receiving(
    *replies: Reply,
    judge: Callable[[Received], str] = lambda _: "",
    tls: ssl.SSLContext | None = None,
    address: str = "127.0.0.1",
) -> Iterator[Receiver]:
    """Run a receiver at the address while the block runs."""
    receiver = Receiver(replies or (GOOD,), judge, scheme="https" if tls else "http", address=address)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, text = receiver.answer(Received(self.path, dict(self.headers), body))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST  # noqa: N815 - the library's name

        def log_message(self, *_: Any) -> None:
            """Write no log."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Ignore clients that close their connection."""

    server = Server((address, 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextmanager
def silent(greeting: bytes = b"", *, drip: bool = False, backlog: bool = True) -> Iterator[int]:
    """Yield a port that accepts connections and sends only a greeting, and with `drip` a byte from time to time.

    Without `backlog` no connection is accepted, because the queue is full.
    """
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0 if not backlog else 16)
        port = int(server.getsockname()[1])
        done = threading.Event()
        connections: list[socket.socket] = []
        if backlog:
            thread = threading.Thread(target=_accept, args=(server, greeting, connections, done, drip), daemon=True)
            thread.start()
        else:
            connections += _fill(port)
        try:
            yield port
        finally:
            done.set()
            for connection in connections:
                connection.close()


def _fill(port: int) -> list[socket.socket]:
    """Fill the queue of a server that never accepts."""
    connections: list[socket.socket] = []
    while True:
        connection = socket.socket()
        connection.settimeout(0.3)
        try:
            connection.connect(("127.0.0.1", port))
        except TimeoutError:
            connection.close()
            return connections
        connections.append(connection)


def _accept(
    server: socket.socket, greeting: bytes, connections: list[socket.socket], done: threading.Event, drip: bool
) -> None:
    server.settimeout(0.05)
    while not done.is_set():
        try:
            connection, _ = server.accept()
        except TimeoutError:
            pass
        except OSError:
            return
        else:
            connection.sendall(greeting)
            connections.append(connection)
        for connection in connections if drip else ():
            try:
                connection.sendall(b"2")
            except OSError:
                continue


@contextmanager
def tunnel(port: int) -> Iterator[list[str]]:
    """Run a proxy that connects every CONNECT to this port. Yields its port, then the first line of each request."""
    requests: list[str] = []

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            requests.append(self.rfile.readline().decode().strip())
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            with socket.create_connection(("127.0.0.1", port)) as target:
                back = threading.Thread(target=_pipe, args=(target, self.connection), daemon=True)
                back.start()
                _pipe(self.connection, target)
                back.join(5)

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        requests.append(str(server.server_address[1]))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield requests
        finally:
            server.shutdown()
            thread.join(5)


def _pipe(source: socket.socket, target: socket.socket) -> None:
    try:
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


def closed_port() -> int:
    """Return a port without a listener, below the ephemeral ports, so that no other test gets it."""
    while True:
        port = 3_000 + secrets.randbelow(4_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED:
                return port


def slack(request: Received) -> str:
    """Return the error of Slack for a request to an incoming webhook, or ''."""
    if not request.headers.get("Content-Type", "").startswith("application/json"):
        return "invalid_payload"
    try:
        message = request.json
    except ValueError:
        return "invalid_payload"
    blocks = message.get("blocks", [])
    if not message.get("text"):
        return "no_text"
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= 50:
        return "invalid_blocks"
    problems = [_block(block) for block in blocks]
    texts = [text for block in blocks for text in _texts(block)]
    problems += [_escaping(text) for text in (*texts, message["text"])]
    if sum(map(len, texts)) > 10_000:
        problems.append("msg_blocks_too_long")
    return next((problem for problem in problems if problem), "")


def _block(block: dict[str, Any]) -> str:
    kind = block.get("type")
    if kind == "header":
        return "" if _text(block.get("text"), 150, "plain_text") else "invalid_blocks: header"
    if kind == "context":
        elements = block.get("elements", [])
        return (
            ""
            if 1 <= len(elements) <= 10 and all(_text(element, 3000) for element in elements)
            else "invalid_blocks: context"
        )
    if kind != "section" or ("text" not in block and "fields" not in block):
        return f"invalid_blocks: {kind}"
    fields = block.get("fields")
    valid_fields = fields is None or (1 <= len(fields) <= 10 and all(_text(field, 2000) for field in fields))
    return "" if valid_fields and ("text" not in block or _text(block["text"], 3000)) else "invalid_blocks: section"


def _text(element: Any, longest: int, *kinds: str) -> bool:
    if not isinstance(element, dict) or element.get("type") not in (kinds or ("mrkdwn", "plain_text")):
        return False
    return isinstance(element.get("text"), str) and 1 <= len(element["text"]) <= longest


def _texts(block: Any) -> Iterator[str]:
    if isinstance(block, dict):
        if isinstance(block.get("text"), str):
            yield block["text"]
        for value in block.values():
            yield from _texts(value)
    elif isinstance(block, list):
        for item in block:
            yield from _texts(item)


def _escaping(text: str) -> str:
    """Slack reads unescaped characters as links or mentions."""
    return "invalid_escaping" if re.search(r"[<>]|&(?!(?:amp|lt|gt);)", text) else ""
