"""Real servers on loopback for the tests of shell text that asks them: good ones, bad ones, and one that hangs."""

from __future__ import annotations

import secrets
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def free_ports(*offsets: int) -> int:
    """A port that is free with those at these offsets from it, below the ones that outgoing connections take."""
    for _ in range(200):
        port = 10_000 + secrets.randbelow(2_700)
        with ExitStack() as stack:
            try:
                for offset in (0, *offsets):
                    stack.enter_context(closing(socket.socket())).bind(("127.0.0.1", port + offset))
            except OSError:
                continue
            return port
    raise AssertionError("no free ports")


@contextmanager
def serve(port: int, code: int = 200, *, served_by: str = "", tls: ssl.SSLContext | None = None) -> Iterator[None]:
    """A server that answers every GET with that code."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            if served_by:
                self.send_header("X-Served-By", served_by)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that leaves within the handshake is none."""

    server = Quiet(("127.0.0.1", port), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def hang(port: int) -> Iterator[None]:
    """A server that takes every connection and never says a word."""
    with closing(socket.socket()) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen(50)
        yield


def certificate(folder: Path, days: int) -> ssl.SSLContext:
    """What a server needs whose own certificate ends in so many days."""
    made = folder / f"{days}.crt", folder / f"{days}.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=shop.test"]
    words = [*command, "-days", str(days), "-out", str(made[0]), "-keyout", str(made[1])]
    subprocess.run(words, check=True, capture_output=True, timeout=30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*made)
    return context
