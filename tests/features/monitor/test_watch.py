"""Repeated checks of one host: over a real connection that breaks, and with a host that never answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread

import pytest

from rolling_upgrade.engine.host import Answer, Host, LocalHost
from rolling_upgrade.engine.model import HealthReport
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import HostUnreachable, RollingError
from rolling_upgrade.features.monitor.workflow import MAX_PAUSE_SECONDS, Watch, pause_seconds
from tests.support.sample import application
from tests.support.sshd import Sshd, free_port

Result = HealthReport | RollingError


class Broken:
    """A host whose `run` always raises an unexpected error."""

    name = "web1"

    def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
        raise ZeroDivisionError("unexpected")

    def close(self) -> None:
        """Do nothing."""


@contextmanager
def watched(host: Host, interval_seconds: float = 0.05) -> Iterator[SimpleQueue[Result]]:
    """Check the host on a thread and yield its results; stop the thread afterwards."""
    results: SimpleQueue[Result] = SimpleQueue()
    ended = Event()
    watch = Watch(host, application(), interval_seconds, ended, lambda _, result: results.put(result))
    thread = Thread(target=watch.run, daemon=True)
    thread.start()
    try:
        yield results
    finally:
        ended.set()
        thread.join(20)
        host.close()
    assert not thread.is_alive()


def next_of(results: SimpleQueue[Result], kind: type[Result]) -> Result:
    """Return the next result of that type."""
    while not isinstance(result := results.get(timeout=30), kind):
        pass
    return result


def test_watch_reconnects_to_a_server_that_was_stopped(tmp_path: Path) -> None:
    port = free_port()
    server = Sshd.start(tmp_path / "own", port)
    host = server.host()
    try:
        with watched(host) as results:
            assert isinstance(next_of(results, HealthReport), HealthReport)
            server.stop()
            assert "web1: " in str(next_of(results, RollingError))
            server = Sshd.start(tmp_path / "own", port)
            assert isinstance(next_of(results, HealthReport), HealthReport)
    finally:
        server.stop()


def test_watch_reports_a_host_that_is_down_and_reaches_it_later(tmp_path: Path) -> None:
    port = free_port()
    keys = Sshd.start(tmp_path / "own", port)
    keys.stop()
    with watched(keys.host()) as results:
        assert "cannot reach" in str(next_of(results, HostUnreachable))
        server = Sshd.start(tmp_path / "own", port)
        try:
            assert isinstance(next_of(results, HealthReport), HealthReport)
        finally:
            server.stop()


def test_watch_reports_a_changed_host_key(sshd: Sshd) -> None:
    with watched(sshd.host(known=sshd.known(key="stranger"))) as results:
        assert "is not the recorded one; refused before the login" in str(next_of(results, HostUnreachable))


def test_watch_reports_an_unexpected_error_and_continues() -> None:
    with watched(Broken()) as results:
        assert "unexpected error: ZeroDivisionError" in str(next_of(results, RollingError))


def test_watch_stops_at_once_during_a_check() -> None:
    class Slow(LocalHost):
        def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
            started.set()
            return super().run(Script("exec sleep 60"), timeout_seconds=timeout_seconds, cancelled=cancelled)

    started = Event()
    with watched(Slow()):
        assert started.wait(20)
        stopped_at = time.monotonic()
    assert time.monotonic() - stopped_at < 5


@pytest.mark.parametrize(
    ("failures", "expected"),
    [(0, 10.0), (1, 1.0), (2, 2.0), (3, 4.0), (5, 16.0), (6, MAX_PAUSE_SECONDS), (10**6, MAX_PAUSE_SECONDS)],
)
def test_pause_seconds_grow_with_failures_up_to_a_limit(failures: int, expected: float) -> None:
    assert pause_seconds(failures, 10.0) == expected
