"""A host that is looked at again and again: over a real connection that breaks, and where nothing ever answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread

import pytest

from rolling_upgrade.engine.host import Answer, Host
from rolling_upgrade.engine.local_host import LocalHost
from rolling_upgrade.engine.model import HealthReport
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import HostUnreachable, RollingError
from rolling_upgrade.features.health.look import MAX_PAUSE_SECONDS, Watch, look, pause_seconds
from tests.support.sample import application
from tests.support.sshd import Sshd, free_port

Found = HealthReport | RollingError


class Strange:
    """A host whose every answer is one that nobody foresaw."""

    name = "web1"

    def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
        raise ZeroDivisionError("who would have thought")

    def close(self) -> None:
        """Nothing to let go of."""


@contextmanager
def watched(host: Host, interval_seconds: float = 0.05) -> Iterator[SimpleQueue[Found]]:
    """What a thread that watches the host finds; ended and waited for afterwards."""
    found: SimpleQueue[Found] = SimpleQueue()
    ended = Event()
    watch = Watch(host, application(), interval_seconds, ended, lambda _, one: found.put(one))
    thread = Thread(target=watch.run, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join(20)
        host.close()
    assert not thread.is_alive()


def next_of(found: SimpleQueue[Found], kind: type[Found]) -> Found:
    """The next thing of that kind that was found."""
    while not isinstance(one := found.get(timeout=30), kind):
        pass
    return one


def test_look_at_this_machine_finds_every_check() -> None:
    report = look(LocalHost("web1"), application())

    names = {check.name for check in report.checks}
    assert {"backend container", "backend http", "full chain", "site", "memory", "clock"} <= names


def test_look_answer_cut_short_is_refused() -> None:
    class Mute(Strange):
        def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
            return Answer(127, "", "sh: not found")

    with pytest.raises(HostUnreachable, match=r"web1 was cut short.*: sh: not found"):
        look(Mute(), application())


def test_watch_server_that_goes_away_is_lost_and_comes_back_by_itself(tmp_path: Path) -> None:
    port = free_port()
    server = Sshd.start(tmp_path / "own", port)
    host = server.host()
    try:
        with watched(host) as found:
            assert isinstance(next_of(found, HealthReport), HealthReport)
            server.stop()
            lost = next_of(found, RollingError)
            assert "web1: " in str(lost)
            server = Sshd.start(tmp_path / "own", port)
            assert isinstance(next_of(found, HealthReport), HealthReport)
    finally:
        server.stop()


def test_watch_host_that_is_down_at_the_start_is_told_and_found_later(tmp_path: Path) -> None:
    port = free_port()
    keys = Sshd.start(tmp_path / "own", port)
    keys.stop()
    with watched(keys.host()) as found:
        refused = next_of(found, HostUnreachable)
        assert "cannot reach" in str(refused)
        server = Sshd.start(tmp_path / "own", port)
        try:
            assert isinstance(next_of(found, HealthReport), HealthReport)
        finally:
            server.stop()


def test_watch_changed_host_key_is_told_as_what_it_is(sshd: Sshd) -> None:
    with watched(sshd.host(known=sshd.known(key="stranger"))) as found:
        assert "is not the recorded one; refused before the login" in str(next_of(found, HostUnreachable))


def test_watch_unexpected_error_is_this_host_s_alone() -> None:
    with watched(Strange()) as found:
        assert "unexpected error: ZeroDivisionError" in str(next_of(found, RollingError))


def test_watch_ends_at_once_while_a_look_is_under_way() -> None:
    class Slow(LocalHost):
        def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
            began.set()
            return super().run(Script("exec sleep 60"), timeout_seconds=timeout_seconds, cancelled=cancelled)

    began = Event()
    with watched(Slow()):
        assert began.wait(20)
        ending = time.monotonic()
    assert time.monotonic() - ending < 5


@pytest.mark.parametrize(
    ("failures", "expected"),
    [(0, 10.0), (1, 1.0), (2, 2.0), (3, 4.0), (5, 16.0), (6, MAX_PAUSE_SECONDS), (10**6, MAX_PAUSE_SECONDS)],
)
def test_pause_grows_with_failures_up_to_a_limit(failures: int, expected: float) -> None:
    assert pause_seconds(failures, 10.0) == expected
