"""Strict visitors of the shop over TLS: no retries, and every unexpected answer is a failure."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timezone
from types import TracebackType

from lab.host import Host

PAUSE_SECONDS = 0.03
TIMEOUT_SECONDS = 15


class Connection(http.client.HTTPSConnection):
    """A connection to a host under a domain of its site, which verifies the certificate."""

    def __init__(self, host: Host, domain: str, trust: ssl.SSLContext) -> None:
        super().__init__(domain, timeout=TIMEOUT_SECONDS, context=trust)
        self._address, self._trust = host.address, trust

    def connect(self) -> None:
        """Connect to the host's address instead of resolving the domain."""
        plain = socket.create_connection((self._address, 443), TIMEOUT_SECONDS)
        self.sock = self._trust.wrap_socket(plain, server_hostname=self.host)


def ask(connection: Connection, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Send one request and read the whole answer."""
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    return answer.status, answer.read()


@dataclass
class Visitors:
    """Readers and buyers of one host, as threads. `orders` are the ids that the shop acknowledged."""

    host: Host
    domains: tuple[str, ...]
    trust: ssl.SSLContext
    requests: int = 0
    orders: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        visits: list[Callable[[Connection], None]] = [self._read, self._buy]
        self._threads = [
            threading.Thread(target=self._visit, args=(domain, visit, keep))
            for domain in self.domains
            for visit in visits
            for keep in (True, False)
        ]

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _visit(self, domain: str, visit: Callable[[Connection], None], keep: bool) -> None:
        """Visit until the end, over one connection or over a new one for each request."""
        connection = Connection(self.host, domain, self.trust)
        while not self._stopping.is_set():
            try:
                visit(connection)
                self.requests += 1
            except (OSError, ValueError, KeyError, AssertionError, http.client.HTTPException) as error:
                moment = datetime.now(timezone.utc).isoformat(timespec="seconds")
                self.failures.append(f"{moment} {domain}: {type(error).__name__}: {error}")
                connection.close()
            if not keep:
                connection.close()
            time.sleep(PAUSE_SECONDS)
        connection.close()

    def _read(self, connection: Connection) -> None:
        status, body = ask(connection, "GET", "/")
        assert status == 200, f"{status}: {body[:200]!r}"
        assert b'id="version"' in body, body[:200]

    def _buy(self, connection: Connection) -> None:
        status, body = ask(connection, "POST", "/orders", json.dumps({"item": "a book"}).encode())
        assert status == 201, f"{status}: {body[:200]!r}"
        self.orders.append(int(json.loads(body)["id"]))


def fetch(host: Host, domain: str, trust: ssl.SSLContext, path: str) -> tuple[int, bytes]:
    """Send one GET request over a new connection."""
    with closing(Connection(host, domain, trust)) as connection:
        return ask(connection, "GET", path)
