"""Images offered to a host over its own SSH connection: a registry for reading, that lives as long as the transfer.

The host's Podman asks it for what it lacks, through a port on the host's loopback that sshd listens on for us; no port
is opened on the workstation. A password of the run keeps other users of the host out. Source: the OCI distribution
specification; a layer goes as the plain tar of its digest with `Content-Encoding: gzip`, which Podman's HTTP client
unpacks by itself (Go, net/http: Transport.DisableCompression).
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any

from fabfile.commands import transfer
from fabfile.commands.shell import Script
from fabfile.errors import PreflightError
from fabfile.remote.image_archive import MANIFEST_TYPE, SavedImage
from fabfile.remote.image_layer import Layer

if TYPE_CHECKING:
    from paramiko import Channel, Transport

#: Bytes that go out before the progress is told again.
_CHUNK = 1 << 15
#: How long a layer waits for a lower one to be asked for: Podman asks for several at once, in any order.
_LOWER_SECONDS = 1.0


@dataclass
class Offer:
    """What one host may fetch, and how much it did. `tell` hears of each piece that went out, in bytes so far.

    `lacking` are the layers that the host is known not to have.
    """

    images: Mapping[str, SavedImage]
    layers: Mapping[str, Layer]
    tell: Callable[[int], None]
    lacking: frozenset[str] = frozenset()
    password: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    sent: int = 0
    _asked: set[str] = field(default_factory=set)
    _waiting: list[int] = field(default_factory=list)
    _turn: Condition = field(default_factory=Condition)
    _busy: bool = False

    def send(self, layer: Layer, write: Callable[[bytes], Any]) -> None:
        """Send one layer at a time, the lowest first: a layer that arrived whole is never sent again after a cut."""
        with self._next(layer.digest):
            for chunk in layer.piece.chunks():
                for start in range(0, len(chunk), _CHUNK):
                    piece = chunk[start : start + _CHUNK]
                    write(piece)
                    self.sent += len(piece)
                    self.tell(self.sent)

    @contextlib.contextmanager
    def _next(self, digest: str) -> Iterator[None]:
        order = list(self.layers)
        place = order.index(digest)
        lower = self.lacking.intersection(order[:place])
        with self._turn:
            self._asked.add(digest)
            self._waiting.append(place)
            self._turn.notify_all()
            self._turn.wait_for(lambda: lower <= self._asked, _LOWER_SECONDS)
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
def offered(transport: Transport, offer: Offer, host: str) -> Iterator[Script]:
    """Offer images on the host's loopback while the block runs; gives what tells the step's script where.

    Raises PreflightError when the host's sshd forbids it.
    """

    def answer(channel: Channel, *_: object) -> None:
        Thread(target=_serve, args=(channel, offer), daemon=True).start()

    port = listen(transport, answer, host)
    try:
        yield transfer.prologue(port, offer.password)
    finally:
        unlisten(transport, port)


def listen(transport: Transport, answer: Callable[..., None], host: str) -> int:
    """Let sshd listen on a port of the host's loopback. Raises PreflightError when it must not."""
    from paramiko import SSHException

    try:
        return int(transport.request_port_forward(transfer.LOOPBACK, 0, answer))
    except (SSHException, EOFError, OSError) as error:
        raise PreflightError(
            f"{host}: sshd lets no port be forwarded to the workstation ({error}), which --transfer push needs.",
            next_step="allow it for the deploy user in sshd_config (AllowTcpForwarding remote, "
            "PermitListen localhost:*), or use a registry: --transfer pull",
        ) from error


def unlisten(transport: Transport, port: int) -> None:
    """Give the port back; a connection that is gone has given it back."""
    from paramiko import SSHException

    with contextlib.suppress(SSHException, EOFError, OSError):
        transport.cancel_port_forward(transfer.LOOPBACK, port)


def _serve(channel: Channel, offer: Offer) -> None:
    """Answer the requests of one connection of the host's, until it ends."""
    with contextlib.suppress(OSError, EOFError):
        _Answering(channel, ("", 0), offer)  # type: ignore[arg-type]
    with contextlib.suppress(OSError, EOFError):
        channel.close()


class _Answering(BaseHTTPRequestHandler):
    """One connection; `server` is the offer."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: requests are seen as progress."""

    def do_HEAD(self) -> None:
        """Answer as to GET, without the content."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer with a manifest, a configuration or a layer of the offer."""
        offer: Offer = self.server  # type: ignore[assignment]
        expected = base64.b64encode(f"{transfer.USER}:{offer.password}".encode()).decode()
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
