"""The image server through a real sshd: access, content, order and errors."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rolling_upgrade.engine.image_archive import ByteRange, Layer, read
from rolling_upgrade.engine.model import Image
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import PreflightError
from rolling_upgrade.ssh.fabric_host import FabricHost
from rolling_upgrade.ssh.image_server import MAX_CONNECTIONS, Offer
from tests.support import saved_images as made
from tests.support.sshd import Sshd

BASE, TOP = made.layer("base", 300_000), made.layer("top")

#: One request as Podman sends it, with the password or without.
FETCH = """
python3 - "$images_at" "$images_login" {path} {login} <<'END'
import base64, hashlib, sys, urllib.request, urllib.error
at, login, path, used = sys.argv[1:]
request = urllib.request.Request(f"http://{{at}}/v2/{{path}}")
if used != "none":
    word = login if used == "right" else "deploy:wrong"
    request.add_header("Authorization", "Basic " + base64.b64encode(word.encode()).decode())
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
try:
    with opener.open(request, timeout=20) as answer:
        content = answer.read()
        print(answer.status, answer.headers.get("Content-Encoding", "-"), hashlib.sha256(content).hexdigest())
except urllib.error.HTTPError as error:
    print(error.code, error.headers.get("WWW-Authenticate", "-"), "-")
END
"""


@pytest.fixture
def host(sshd: Sshd) -> Iterator[FabricHost]:
    found = sshd.host()
    yield found
    found.close()


@pytest.fixture
def offer(tmp_path: Path) -> Offer:
    reference = "registry.test/shop/backend:v1"
    config = made.configuration([BASE, TOP])
    source = made.docker_archive(tmp_path / "image.tar", {reference: [BASE, TOP]}, {reference: config})
    saved = read(source, Image.parse(reference), tmp_path, "amd64")
    layers = {layer.digest: layer.packed(tmp_path) for layer in saved.layers}
    return Offer({saved.image.digest: saved}, layers, lambda _: None)


def fetch(host: FabricHost, offer: Offer, path: str, login: str = "right") -> list[str]:
    """Return the status, encoding and hash of the response on the host."""
    body = FETCH.format(path=path, login=login)
    with host.offer(offer) as prologue:
        answer = host.run(Script(f"{prologue.text}\n{body}"), timeout_seconds=60)
    assert answer.ok, answer.output_tail
    return answer.output.split()


def test_offer_sends_a_layer_gzipped_and_counts_it(host: FabricHost, offer: Offer) -> None:
    layer = offer.layers[made.digest(BASE)]

    status, encoding, hashed = fetch(host, offer, f"image/blobs/{layer.digest}")

    assert (status, encoding) == ("200", "gzip")
    assert hashed == hashlib.sha256(b"".join(layer.piece.chunks())).hexdigest()
    assert gzip.decompress(b"".join(layer.piece.chunks())) == BASE
    assert offer.sent == layer.piece.size


def test_offer_manifest_names_the_plain_layers(host: FabricHost, offer: Offer) -> None:
    digest, saved = next(iter(offer.images.items()))

    assert fetch(host, offer, f"image/manifests/{digest}")[2] == digest[7:]
    assert [layer["digest"] for layer in json.loads(saved.manifest)["layers"]] == [made.digest(BASE), made.digest(TOP)]


def test_offer_configuration_has_the_image_id(host: FabricHost, offer: Offer) -> None:
    saved = next(iter(offer.images.values()))

    assert fetch(host, offer, f"image/blobs/{saved.id}") == ["200", "-", saved.id[7:]]


@pytest.mark.parametrize("login", ["none", "wrong"])
@pytest.mark.parametrize("path", ["", "image/blobs/sha256:00"])
def test_offer_refuses_another_user_of_the_host(host: FabricHost, offer: Offer, login: str, path: str) -> None:
    assert fetch(host, offer, path or "''", login)[0] == "401"
    assert offer.sent == 0


@pytest.mark.parametrize("path", ["image/blobs/sha256:00", "image/manifests/v1", "../../etc/passwd", "image/tags/list"])
def test_offer_answers_404_for_other_paths(host: FabricHost, offer: Offer, path: str) -> None:
    assert fetch(host, offer, path)[0] == "404"


def test_offer_ended_no_longer_answers(host: FabricHost, offer: Offer) -> None:
    with host.offer(offer) as prologue:
        at = prologue.text.splitlines()[0].partition("=")[2]

    port = at.rpartition(":")[2]
    answer = host.run(Script(f"ss -Hltn 'sport = :{port}'"), timeout_seconds=30)

    assert answer.output.strip() == ""


def test_offer_password_is_a_secret_of_the_script(host: FabricHost, offer: Offer) -> None:
    with host.offer(offer) as prologue:
        assert offer.password in prologue.text
        assert offer.password not in prologue.masked
        assert offer.password not in repr(offer)


def test_offer_without_port_forwarding_raises_with_a_remedy(tmp_path: Path) -> None:
    server = Sshd.start(tmp_path / "strict")
    try:
        keys = server.directory / "authorized_keys"
        keys.write_text(f"no-port-forwarding {keys.read_text()}")
        host = server.host()
        with pytest.raises(PreflightError, match="refuses to forward a port") as refused, host.offer(_nothing()):
            pass
        assert "AllowTcpForwarding" in refused.value.next_step
        host.close()
    finally:
        server.stop()


def _nothing() -> Offer:
    return Offer({}, {}, lambda _: None)


def test_offer_layer_waits_for_the_request_of_a_lower_missing_layer(tmp_path: Path) -> None:
    offer = _three_layers(tmp_path, "012")
    sent: list[bytes] = []
    threads = []
    for place in ("2", "0", "1"):
        threads.append(threading.Thread(target=offer.send, args=(offer.layers[place], sent.append)))
        threads[-1].start()
        while place not in offer._requested:
            threads[-1].join(0.01)
    for thread in threads:
        thread.join(20)

    assert sent == [b"0", b"1", b"2"]


def test_offer_layer_is_sent_when_a_lower_layer_is_never_requested(tmp_path: Path) -> None:
    offer = _three_layers(tmp_path, "02")
    sent: list[bytes] = []

    offer.send(offer.layers["2"], sent.append)

    assert sent == [b"2"]


def _three_layers(directory: Path, missing: str = "") -> Offer:
    path = directory / "bytes"
    path.write_bytes(b"012")
    layers = {str(place): Layer(str(place), 1, ByteRange(path, place, 1), gzipped=True) for place in range(3)}
    return Offer({}, layers, lambda _: None, frozenset(missing))


def test_offer_parallel_requests_are_answered_one_by_one_lowest_first(tmp_path: Path) -> None:
    offer = _three_layers(tmp_path)
    started, free, sent = threading.Event(), threading.Event(), []

    def write(data: bytes) -> None:
        started.set()
        free.wait(20)
        sent.append(data)

    def request(place: int) -> threading.Thread:
        thread = threading.Thread(target=offer.send, args=(offer.layers[str(place)], write))
        thread.start()
        return thread

    first = request(1)
    started.wait(20)
    others = [request(2), request(0)]
    while len(offer._waiting) < 2:
        others[0].join(0.01)
    free.set()
    for thread in (first, *others):
        thread.join(20)

    assert sent == [b"1", b"0", b"2"]
    assert offer.sent == 3


MANY = """
python3 - "$images_at" <<'END'
import select, socket, sys
host, port = sys.argv[1].split(":")
held = {socket.create_connection((host, int(port)), timeout=20) for _ in range(60)}
refused = 0
while ready := select.select(held, [], [], 3)[0]:
    refused += sum(connection.recv(1) == b"" for connection in ready)
    held -= {*ready}
print(refused)
END
"""


def test_offer_closes_connections_beyond_the_maximum_and_answers_later_ones(host: FabricHost, offer: Offer) -> None:
    with host.offer(offer) as prologue:
        refused = host.run(Script(f"{prologue.text}\n{MANY}"), timeout_seconds=120)
        again = host.run(
            Script(f"{prologue.text}\n{FETCH.format(path='image/blobs/none', login='right')}"), timeout_seconds=60
        )

    assert int(refused.output) == 60 - MAX_CONNECTIONS, refused
    assert again.output.startswith("404 "), again


def test_offer_refuses_endless_request_lines_and_headers(host: FabricHost, offer: Offer) -> None:
    text = """
python3 - "$images_at" <<'END'
import socket, sys
host, port = sys.argv[1].split(":")
starts = [
    b"GET /" + b"x" * 70_000,
    b"GET / HTTP/1.1\\r\\n" + b"X-A: b\\r\\n" * 200,
    b"GET / HTTP/1.1\\r\\nX: " + b"y" * 70_000,
]
for start in starts:
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(start + b"\\r\\n\\r\\n")
    print(connection.recv(100).split()[1].decode())
END
"""
    with host.offer(offer) as prologue:
        answer = host.run(Script(f"{prologue.text}\n{text}"), timeout_seconds=60)

    assert answer.output.split() == ["414", "431", "431"], answer
