"""HTTP servers on loopback for tests of shell text: healthy, failing and hanging ones."""

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
    """Return a free port for which the ports at these offsets are free too, all below the ephemeral range."""
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
    """Answer every GET with this status while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            if served_by:
                self.send_header("X-Served-By", served_by)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Write no log."""

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Ignore clients that close the connection during the TLS handshake."""

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
    """Accept every connection and send nothing while the block runs."""
    with closing(socket.socket()) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen(50)
        yield


def certificate(directory: Path, days: int) -> ssl.SSLContext:
    """Return a server's TLS context with a self-signed certificate that expires in so many days."""
    files = directory / f"{days}.crt", directory / f"{days}.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=shop.test"]
    words = [*command, "-days", str(days), "-out", str(files[0]), "-keyout", str(files[1])]
    subprocess.run(words, check=True, capture_output=True, timeout=30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    return context
