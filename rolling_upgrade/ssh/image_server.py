"""A temporary read-only registry that offers images to a host over its SSH connection.

The host's Podman pulls missing layers through a port on its loopback interface, which sshd forwards; the workstation
opens no port. A password for each run keeps other users of the host out. Source: the OCI distribution specification; a
layer is sent as the plain tar of its digest with `Content-Encoding: gzip`, which Podman's HTTP client decompresses
itself (Go, net/http: Transport.DisableCompression).
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from threading import BoundedSemaphore, Condition, Thread
from typing import TYPE_CHECKING, Any

from rolling_upgrade.engine import image_push
from rolling_upgrade.engine.image_archive import MANIFEST_TYPE, Layer, SavedImage
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import PreflightError
from rolling_upgrade.ssh.connection import close_channel, closed_after

if TYPE_CHECKING:
    from paramiko import Channel, Transport

#: The bytes between two progress reports.
_CHUNK = 1 << 15
#: The maximum number of parallel connections of one host: Podman pulls a few layers at a time.
MAX_CONNECTIONS = 32
#: The time for which a layer waits for the request of a lower layer: Podman requests several in any order.
_LOWER_SECONDS = 1.0


@dataclass
class Offer:
    """The images that one host may pull. `on_sent` receives the number of bytes sent so far.

    `missing` are the layers that the host is known to lack.
    """

    images: Mapping[str, SavedImage]
    layers: Mapping[str, Layer]
    on_sent: Callable[[int], None]
    missing: frozenset[str] = frozenset()
    password: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    sent: int = 0
    _requested: set[str] = field(default_factory=set)
    _waiting: list[int] = field(default_factory=list)
    _turn: Condition = field(default_factory=Condition)
    _busy: bool = False

    def send(self, layer: Layer, write: Callable[[bytes], Any]) -> None:
        """Send one layer at a time, the lowest first: after an interruption a complete layer is never sent again."""
        with self._next(layer.digest):
            for chunk in layer.piece.chunks():
                for start in range(0, len(chunk), _CHUNK):
                    piece = chunk[start : start + _CHUNK]
                    write(piece)
                    self.sent += len(piece)
                    self.on_sent(self.sent)

    @contextlib.contextmanager
    def _next(self, digest: str) -> Iterator[None]:
        order = list(self.layers)
        place = order.index(digest)
        lower = self.missing.intersection(order[:place])
        with self._turn:
            self._requested.add(digest)
            self._waiting.append(place)
            self._turn.notify_all()
            self._turn.wait_for(lambda: lower <= self._requested, _LOWER_SECONDS)
            self._turn.wait_for(lambda: not self._busy and place == min(self._waiting))
            self._waiting.remove(place)
            self._busy = True
        try:
            yield
        finally:
            with self._turn:
                self._busy = False
                self._turn.notify_all()


@contextlib.contextmanager
def offered(transport: Transport, offer: Offer, host: str, seconds: float) -> Iterator[Script]:
    """Offer images on the host's loopback interface during the block; yields the prologue with their address.

    Raises PreflightError when sshd forbids the forwarding, or does not answer within `seconds`.
    """

    free = BoundedSemaphore(MAX_CONNECTIONS)

    def answer(channel: Channel, *_: object) -> None:
        # The transport's thread must not block.
        if free.acquire(blocking=False):
            Thread(target=_serve, args=(channel, offer, free), daemon=True).start()
        else:
            Thread(target=close_channel, args=(channel,), daemon=True).start()

    port = listen(transport, answer, host, seconds)
    try:
        yield image_push.prologue(port, offer.password)
    finally:
        stop_listening(transport, port, seconds)


def listen(transport: Transport, answer: Callable[..., None], host: str, seconds: float) -> int:
    """Let sshd listen on a port of the host's loopback interface. Raises PreflightError when it refuses or hangs."""
    from paramiko import SSHException

    try:
        # Paramiko waits for the answer to this request without a timeout.
        with closed_after(transport, seconds):
            return int(transport.request_port_forward(image_push.LOOPBACK, 0, answer))
    except (SSHException, EOFError, OSError) as error:
        reason = error if transport.is_active() else "the connection ended without an answer"
        raise PreflightError(
            f"{host}: sshd refuses to forward a port to the workstation ({reason}), which --transfer push needs.",
            next_step="allow it for the deploy user in sshd_config (AllowTcpForwarding remote, "
            "PermitListen localhost:*), or use a registry: --transfer pull",
        ) from error


def stop_listening(transport: Transport, port: int, seconds: float) -> None:
    """Release the port; a closed connection has already released it."""
    from paramiko import SSHException

    with contextlib.suppress(SSHException, EOFError, OSError), closed_after(transport, seconds):
        transport.cancel_port_forward(image_push.LOOPBACK, port)


def _serve(channel: Channel, offer: Offer, free: BoundedSemaphore) -> None:
    """Answer the requests of one connection until it ends."""
    from paramiko import SSHException

    try:
        with contextlib.suppress(SSHException, OSError, EOFError):
            _Handler(channel, ("", 0), offer)  # type: ignore[arg-type]
        close_channel(channel)
    finally:
        free.release()


class _Handler(BaseHTTPRequestHandler):
    """The handler of one connection; `server` is the offer.

    Source: http.server limits a request line and a header to 64 KiB, and a request to 100 headers; bodies are not read.
    """

    #: The timeout of a read or write.
    timeout = 300.0
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing: the progress shows the requests."""

    def do_HEAD(self) -> None:
        """Answer like GET, without content."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer with a manifest, a configuration or a layer."""
        offer: Offer = self.server  # type: ignore[assignment]
        expected = base64.b64encode(f"{image_push.USER}:{offer.password}".encode()).decode()
        given = self.headers.get("Authorization", "").encode(errors="replace")
        if not hmac.compare_digest(given, f"Basic {expected}".encode()):
            self._answer(401, b"{}", {"WWW-Authenticate": 'Basic realm="images"'})
            return
        kind, _, digest = self.path.rpartition("/")
        image = offer.images.get(digest)
        configurations = {image.id: image.configuration for image in offer.images.values()}
        if self.path == "/v2/":
            self._answer(200, b"{}")
        elif kind.endswith("/manifests") and image:
            self._answer(200, image.manifest, {"Docker-Content-Digest": digest}, MANIFEST_TYPE)
        elif kind.endswith("/blobs") and digest in configurations:
            self._answer(200, configurations[digest], {}, "application/octet-stream")
        elif kind.endswith("/blobs") and digest in offer.layers:
            self._layer(offer, offer.layers[digest])
        else:
            self._answer(404, b"{}")

    def _layer(self, offer: Offer, layer: Layer) -> None:
        packed = {"Content-Encoding": "gzip"} if layer.gzipped else {}
        self._head(200, layer.piece.size, packed, "application/octet-stream")
        if self.command == "GET":
            offer.send(layer, self.wfile.write)

    def _answer(
        self, status: int, content: bytes, headers: Mapping[str, str] | None = None, kind: str = "application/json"
    ) -> None:
        self._head(status, len(content), headers or {}, kind)
        if self.command == "GET":
            self.wfile.write(content)

    def _head(self, status: int, length: int, headers: Mapping[str, str], kind: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Type": kind, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()
