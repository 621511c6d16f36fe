"""An HTTP/1.1 server that drains: on SIGTERM it accepts no new connection, finishes open requests, and exits with 0.

It runs inside the sample application's containers: standard library only.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Time limits while draining: for a new request on an idle connection, and for open requests.
IDLE_GRACE_SECONDS = 1.5
BACKLOG_SECONDS = 0.5
FINISH_SECONDS = 8.0
#: Longer than the 60 s of Nginx, so that only the proxy closes idle connections.
KEEP_ALIVE_SECONDS = 75.0


class DrainingServer(ThreadingHTTPServer):
    """A server that counts its connections, so that it can stop after the last one."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, port: int, handler: type[Handler]) -> None:
        super().__init__(("0.0.0.0", port), handler)
        self.draining = threading.Event()
        self.drain_started_at = 0.0
        self.open_connections = 0
        self._changed = threading.Condition()

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Count the connection before its thread starts."""
        with self._changed:
            self.open_connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        """Close the connection and count it out."""
        super().shutdown_request(request)
        with self._changed:
            self.open_connections -= 1
            self._changed.notify_all()

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - as inherited
        """Ignore disconnected clients, and log every other error in one line."""
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            log(f"error while answering {client_address}: {error!r}")

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, drain, and return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: threading.Thread(target=self._stop).start())
        self.serve_forever(poll_interval=0.05)
        self.server_close()
        deadline = time.monotonic() + FINISH_SECONDS
        with self._changed:
            ended = self._changed.wait_for(lambda: self.open_connections == 0, deadline - time.monotonic())
        log("drained" if ended else f"gave up on {self.open_connections} connections")
        return 0

    def _stop(self) -> None:
        self.drain_started_at = time.monotonic()
        self.draining.set()
        log(f"SIGTERM: draining {self.open_connections} connections")
        # Connections in the kernel's backlog are still answered.
        while time.monotonic() - self.drain_started_at < BACKLOG_SECONDS:
            if not select.select([self.socket], [], [], 0.1)[0]:
                break
            time.sleep(0.01)
        self.shutdown()


class Handler(BaseHTTPRequestHandler):
    """A keep-alive handler that sends each answer in one packet. Subclasses implement `respond`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = KEEP_ALIVE_SECONDS
    server: DrainingServer

    def respond(self) -> None:
        """Answer one request."""
        raise NotImplementedError

    def handle_one_request(self) -> None:
        """Wait for a request. While draining, close an idle connection after a short time."""
        if not self._request_is_coming():
            self.close_connection = True
            return
        super().handle_one_request()

    def do_GET(self) -> None:
        """Pass every method to `respond`."""
        self.respond()

    do_POST = do_HEAD = do_GET  # noqa: N815 - the names that http.server calls

    def answer(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        """Send a complete answer. While draining, it is the last one on its connection."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if self.server.draining.is_set():
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def answer_json(self, status: int, /, **content: object) -> None:
        """Send one JSON object."""
        self.answer(status, json.dumps(content).encode() + b"\n")

    def log_message(self, format: str, *args: object) -> None:
        """Write no access log, because Nginx has one."""

    def _request_is_coming(self) -> bool:
        """Wait for the first byte of a request. Return False when the connection has to be closed."""
        idle_since = time.monotonic()
        if self._buffered():
            return True
        while not select.select([self.connection], [], [], 0.25)[0]:
            limit = KEEP_ALIVE_SECONDS
            if self.server.draining.is_set():
                idle_since, limit = max(idle_since, self.server.drain_started_at), IDLE_GRACE_SECONDS
            if time.monotonic() - idle_since > limit:
                return False
        return True

    def _buffered(self) -> bool:
        """Return whether the reader has buffered bytes, which select does not see."""
        self.connection.setblocking(False)
        try:
            return bool(self.rfile.peek(1))  # type: ignore[attr-defined]
        finally:
            self.connection.settimeout(self.timeout)


def log(text: str) -> None:
    """Write one line for `podman logs`."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
