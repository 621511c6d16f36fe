"""The sample application as a process: its stored uploads, its drain, and each of its faults."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from lab.host import wait_for
from lab.images import APPLICATION

PROXIED = {"X-Forwarded-For": "192.0.2.1", "Host": "app.lab.test"}


class Running:
    """One process of the application on a separate port."""

    def __init__(self, folder: Path, service: str, fault: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        environment = {
            "PORT": str(self.port),
            "VERSION": "v7",
            "FAULT": fault,
            "DATABASE_PATH": str(folder / "data" / "memoryark.db"),
            "UPLOADS_PATH": str(folder / "uploads"),
            "PATH": os.environ["PATH"],
        }
        command = [sys.executable, str(APPLICATION / f"{service}.py")]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def ask(self, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> tuple[int, bytes]:
        connection = self.connect()
        try:
            connection.request("GET" if body is None else "POST", path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def wait_for_line(self, text: str) -> None:
        assert self.process.stdout is not None
        assert any(text in line for line in self.process.stdout)

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start processes on one directory. All are stopped after the test."""
    started: list[Running] = []

    def run(service: str = "backend", fault: str = "", *, listening: bool = True) -> Running:
        running = Running(tmp_path, service, fault)
        started.append(running)
        if listening:
            wait_for(running.listens, 20, service)
        return running

    yield run
    for running in started:
        running.process.kill()
        running.process.communicate(timeout=20)


def test_acknowledged_upload_is_stored_and_visible_to_the_other_color(start: Start, tmp_path: Path) -> None:
    blue, green = start(), start()
    status, answer = blue.ask("/api/uploads", body=b"hello")
    stored = json.loads(answer)
    assert (status, stored["sha256"]) == (201, hashlib.sha256(b"hello").hexdigest())
    assert (tmp_path / "uploads" / stored["id"]).read_bytes() == b"hello"
    assert green.ask(f"/api/uploads/{stored['id']}") == (200, b"hello")
    assert json.loads(green.ask("/api/uploads?count")[1])["count"] == 1


def test_uploads_to_both_colors_at_once_are_all_kept(start: Start) -> None:
    colors = start(), start()
    answers: list[int] = []

    def upload(color: Running) -> None:
        for number in range(20):
            answers.append(color.ask("/api/uploads", body=b"%d" % number)[0])

    threads = [threading.Thread(target=upload, args=(color,)) for color in colors for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [201] * 80
    assert json.loads(colors[0].ask("/api/uploads")[1])["count"] == 80


def test_unknown_path_and_unexpected_body_are_refused(start: Start) -> None:
    backend = start()
    assert backend.ask("/nothing")[0] == 404
    assert backend.ask("/api/version", body=b"x")[0] == 405
    assert backend.ask("/api/uploads/none")[0] == 404


def test_keep_alive_connection_serves_many_requests(start: Start) -> None:
    connection = start().connect()
    for _ in range(3):
        connection.request("GET", "/api/version")
        response = connection.getresponse()
        assert json.loads(response.read()) == {"version": "v7"}
        assert response.headers["Connection"] is None
    connection.close()


def test_drain_finishes_a_slow_request_and_exits_zero(start: Start) -> None:
    backend = start()
    connection = backend.connect()
    connection.request("GET", "/api/slow?seconds=1.5")
    backend.process.send_signal(signal.SIGTERM)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["slept"]) == (200, 1.5)
    connection.close()
    assert backend.process.wait(timeout=20) == 0


def test_drain_answers_an_idle_connection_once_more_and_closes_it(start: Start) -> None:
    backend = start()
    connection = backend.connect()
    connection.request("GET", "/api/version")
    connection.getresponse().read()
    backend.process.send_signal(signal.SIGTERM)
    backend.wait_for_line("SIGTERM")
    connection.request("GET", "/api/version")
    response = connection.getresponse()
    assert (response.status, response.headers["Connection"]) == (200, "close")
    response.read()
    connection.close()
    assert backend.process.wait(timeout=20) == 0


def test_drain_sends_goodbye_to_a_stream(start: Start) -> None:
    backend = start()
    connection = backend.connect()
    connection.request("GET", "/api/stream")
    response = connection.getresponse()
    assert response.readline() == b"event: tick\n"
    backend.process.send_signal(signal.SIGTERM)
    rest = response.read()
    connection.close()
    assert rest.endswith(b'event: goodbye\ndata: {"version": "v7"}\n\n')
    assert backend.process.wait(timeout=20) == 0


def test_frontend_shows_its_version_and_drains(start: Start) -> None:
    frontend = start("frontend")
    assert json.loads(frontend.ask("/health")[1]) == {"status": "ok", "version": "v7"}
    assert b'<strong id="version">v7</strong>' in frontend.ask("/")[1]
    assert frontend.end() == 0


def test_health_without_a_readable_database_fails(start: Start, tmp_path: Path) -> None:
    backend = start()
    assert backend.ask("/api/health")[0] == 200
    for part in (tmp_path / "data").iterdir():
        part.unlink()
    assert backend.ask("/api/health")[0] == 503


@pytest.mark.parametrize("fault", ["broken", "never-healthy"])
def test_fault_of_the_health_path_leaves_the_process_running(start: Start, fault: str) -> None:
    backend = start(fault=fault)
    assert [backend.ask("/api/health")[0] for _ in range(3)] == [503, 503, 503]
    assert backend.ask("/api/version")[0] == 200


def test_fault_flapping_alternates(start: Start) -> None:
    backend = start(fault="flapping")
    assert [backend.ask("/api/health")[0] for _ in range(4)] == [200, 503, 200, 503]


def test_fault_exits_at_once_exits_with_1(start: Start) -> None:
    assert start(fault="exits-at-once", listening=False).process.wait(timeout=20) == 1


def test_fault_crash_later_is_healthy_first(start: Start) -> None:
    backend = start(fault="crash-later")
    assert backend.ask("/api/health")[0] == 200
    assert backend.process.wait(timeout=20) == 1


def test_fault_slow_start_becomes_healthy(start: Start) -> None:
    backend = start(fault="slow-start")
    assert backend.ask("/api/health")[0] == 503
    wait_for(lambda: backend.ask("/api/health")[0] == 200, 20, "health")
    assert backend.process.poll() is None


def test_fault_wrong_chain_shows_only_behind_a_proxy(start: Start) -> None:
    backend = start(fault="wrong-chain")
    assert backend.ask("/api/health")[0] == 200
    assert backend.ask("/api/health", PROXIED)[0] == 503
