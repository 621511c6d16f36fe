"""The relay delays by at least the asked time and alters nothing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from benchmarks.relay import Relay

RTT = 0.1


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """An echo server for one connection, which closes when the client has closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()
        thread.join()


def read_all(client: socket.socket) -> bytes:
    """Read until the other side closes the connection."""
    return b"".join(iter(lambda: client.recv(65536), b""))


def test_relay_many_chunks_pass_unchanged_and_in_order(echo: tuple[str, int]) -> None:
    sent = b"".join(number.to_bytes(4, "big") * 16 for number in range(20_000))
    got: list[bytes] = []
    with Relay({"web1": echo}, 0.01) as relay, socket.create_connection(("127.0.0.1", relay.ports["web1"])) as client:
        reader = threading.Thread(target=lambda: got.append(read_all(client)))
        reader.start()
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        reader.join()
    assert got == [sent]


def test_relay_open_connection_answers_after_a_round_trip(echo: tuple[str, int]) -> None:
    with Relay({"web1": echo}, RTT) as relay, socket.create_connection(("127.0.0.1", relay.ports["web1"])) as client:
        client.sendall(b"first")
        client.recv(5)
        waited = []
        for _ in range(3):
            began = time.monotonic()
            client.sendall(b"ping")
            assert client.recv(4) == b"ping"
            waited.append(time.monotonic() - began)
    assert min(waited) >= RTT


def test_relay_new_connection_costs_a_round_trip_more(echo: tuple[str, int]) -> None:
    with Relay({"web1": echo}, RTT) as relay:
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", relay.ports["web1"])) as client:
            client.sendall(b"ping")
            assert client.recv(4) == b"ping"
        waited = time.monotonic() - began
    assert waited >= 2 * RTT


def test_relay_two_targets_get_separate_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        targets = {"web1": one.getsockname(), "web2": two.getsockname()}
        with Relay(targets, 0) as relay:
            with socket.create_connection(("127.0.0.1", relay.ports["web2"])):
                two.settimeout(5)
                accepted, _ = two.accept()
                accepted.close()
            one.setblocking(False)
            with pytest.raises(BlockingIOError):
                one.accept()


def test_relay_target_that_refuses_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()
    with Relay({"web1": free}, 0) as relay, socket.create_connection(("127.0.0.1", relay.ports["web1"])) as client:
        client.settimeout(5)
        assert client.recv(1) == b""


def test_relay_closed_with_an_open_connection_ends_it(echo: tuple[str, int]) -> None:
    with Relay({"web1": echo}, 0) as relay:
        client = socket.create_connection(("127.0.0.1", relay.ports["web1"]))
        client.sendall(b"ping")
        assert client.recv(4) == b"ping"
    with client:
        client.settimeout(5)
        assert client.recv(1) == b""
