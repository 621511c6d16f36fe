"""Real receivers on loopback: an HTTP server that judges as Slack does, and servers that misbehave."""

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

#: One answer of a receiver: status, headers, text.
Reply = tuple[int, Mapping[str, str], str]
GOOD: Reply = (200, {}, "ok")


@dataclass
class Received:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """A server with a list of replies; the last one is given for ever. `judge` may refuse a request by itself."""

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
    """A receiver that listens at the address while the block runs."""
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
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that goes away is what some tests are about."""

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
    """A port that takes connections and says no more than a greeting; `drip` gives a byte of nothing now and then.

    Without `backlog` not even a connection is taken: the queue is full.
    """
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0 if not backlog else 16)
        port = int(server.getsockname()[1])
        done = threading.Event()
        kept: list[socket.socket] = []
        if backlog:
            thread = threading.Thread(target=_keep, args=(server, greeting, kept, done, drip), daemon=True)
            thread.start()
        else:
            kept += _fill(port)
        try:
            yield port
        finally:
            done.set()
            for one in kept:
                one.close()


def _fill(port: int) -> list[socket.socket]:
    """Take every place in the queue of a server that never accepts."""
    found: list[socket.socket] = []
    while True:
        one = socket.socket()
        one.settimeout(0.3)
        try:
            one.connect(("127.0.0.1", port))
        except TimeoutError:
            one.close()
            return found
        found.append(one)


def _keep(server: socket.socket, greeting: bytes, kept: list[socket.socket], done: threading.Event, drip: bool) -> None:
    server.settimeout(0.05)
    while not done.is_set():
        try:
            one, _ = server.accept()
        except TimeoutError:
            pass
        except OSError:
            return
        else:
            one.sendall(greeting)
            kept.append(one)
        for open_one in kept if drip else ():
            try:
                open_one.sendall(b"2")
            except OSError:
                continue


@contextmanager
def tunnel(port: int) -> Iterator[list[str]]:
    """A proxy that leads every CONNECT to that port; gives its own port, then the first line of each request."""
    asked: list[str] = []

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().decode().strip())
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            with socket.create_connection(("127.0.0.1", port)) as onward:
                back = threading.Thread(target=_pipe, args=(onward, self.connection), daemon=True)
                back.start()
                _pipe(self.connection, onward)
                back.join(5)

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        asked.append(str(server.server_address[1]))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join(5)


def _pipe(one: socket.socket, other: socket.socket) -> None:
    try:
        while piece := one.recv(65536):
            other.sendall(piece)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        return


def closed_port() -> int:
    """A port on which nothing listens, below those that the kernel hands out: no other test is given it meanwhile."""
    while True:
        port = 3_000 + secrets.randbelow(4_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED:
                return port


def slack(request: Received) -> str:
    """What Slack would say against a request to an incoming webhook, '' for nothing."""
    if not request.headers.get("Content-Type", "").startswith("application/json"):
        return "invalid_payload"
    try:
        found = request.json
    except ValueError:
        return "invalid_payload"
    blocks = found.get("blocks", [])
    if not found.get("text"):
        return "no_text"
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= 50:
        return "invalid_blocks"
    problems = [_block(block) for block in blocks]
    texts = [text for block in blocks for text in _texts(block)]
    problems += [_escaping(text) for text in (*texts, found["text"])]
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
            "" if 1 <= len(elements) <= 10 and all(_text(one, 3000) for one in elements) else "invalid_blocks: context"
        )
    if kind != "section" or ("text" not in block and "fields" not in block):
        return f"invalid_blocks: {kind}"
    fields = block.get("fields")
    good_fields = fields is None or (1 <= len(fields) <= 10 and all(_text(one, 2000) for one in fields))
    return "" if good_fields and ("text" not in block or _text(block["text"], 3000)) else "invalid_blocks: section"


def _text(found: Any, longest: int, *kinds: str) -> bool:
    if not isinstance(found, dict) or found.get("type") not in (kinds or ("mrkdwn", "plain_text")):
        return False
    return isinstance(found.get("text"), str) and 1 <= len(found["text"]) <= longest


def _texts(found: Any) -> Iterator[str]:
    if isinstance(found, dict):
        if isinstance(found.get("text"), str):
            yield found["text"]
        for value in found.values():
            yield from _texts(value)
    elif isinstance(found, list):
        for item in found:
            yield from _texts(item)


def _escaping(text: str) -> str:
    """Bare signs would be read as a link or as a mention of everybody."""
    return "invalid_escaping" if re.search(r"[<>]|&(?!(?:amp|lt|gt);)", text) else ""
