"""The relay delays and alters nothing."""

from __future__ import annotations

import socket
import threading
import time

from benchmarks.relay import Relay


def test_relay_passes_bytes_unchanged_and_delays_them_by_the_round_trip() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def echo() -> None:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data)

        thread = threading.Thread(target=echo)
        thread.start()
        with Relay({"a": server.getsockname()}, 0.1) as relay:
            with socket.create_connection(("127.0.0.1", relay.ports["a"])) as client:
                began = time.monotonic()
                sent = bytes(range(256)) * 1000
                client.sendall(sent)
                got = b""
                while len(got) < len(sent):
                    got += client.recv(65536)
                spent = time.monotonic() - began
            thread.join()
    assert got == sent
    assert spent >= 0.1
