"""The loop of the dashboard: what comes in is shown at once, and every way to end it ends it."""

from __future__ import annotations

import io
import time
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread

import pytest

from fabfile.commands.shell import Script
from fabfile.errors import ConfigError, HostUnreachable
from fabfile.remote.host import Answer
from fabfile.remote.looking import Watch
from fabfile.report.dashboard import Dashboard, Watched
from fabfile.report.output import Output
from fabfile.report.screen import PlainDisplay
from fabfile.workflows.monitor import Inbox, News, Request, Told, monitor, show, watching
from tests.commands.sample import application
from tests.report.builders import NOW
from tests.report.reports import report

BOARD = Dashboard("production", (Watched("web1", 10), Watched("web2", 10)))


class Blocked:
    """A host whose connection hangs for as long as the test wants, deaf to being cancelled."""

    def __init__(self, name: str) -> None:
        self.name, self.free = name, Event()

    def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
        self.free.wait(60)
        raise HostUnreachable(f"{self.name}: cannot reach it.")

    def close(self) -> None:
        """Nothing to let go of."""


def shown(*told: News | Told, stream: io.StringIO | None = None) -> list[str]:
    """What was written for all that was told, without the time."""
    inbox: Inbox = SimpleQueue()
    for one in told:
        inbox.put(one)
    stream = stream or io.StringIO()
    show(BOARD, inbox, PlainDisplay(Output(stream), lambda: float(NOW)))
    return [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]


def test_show_every_look_until_the_end_is_told() -> None:
    news: list[News | Told] = [
        News("web2", HostUnreachable("web2: cannot reach it."), NOW),
        Told.REDRAW,
        News("web1", report(), NOW),
        Told.END,
        News("web1", report(chain="502"), NOW),
    ]

    lines = shown(*news)

    assert lines[0] == "web2  ? not reached: cannot reach it."
    assert lines[-1] == "web1  well  7 ms  backend blue v1"
    assert len(lines) == 3


def test_show_ends_when_nobody_reads_any_more() -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    shown(News("web1", report(), NOW), stream=Closed())


def test_show_is_ended_by_a_word_that_comes_while_it_waits() -> None:
    inbox: Inbox = SimpleQueue()
    thread = Thread(target=show, args=(BOARD, inbox, PlainDisplay(Output(io.StringIO()), time.time)), daemon=True)
    thread.start()

    inbox.put(Told.END)
    thread.join(20)

    assert not thread.is_alive()


def test_watching_one_host_that_hangs_delays_neither_the_others_nor_the_end() -> None:
    hanging, inbox, ended = Blocked("web1"), SimpleQueue[str](), Event()
    refusing = Blocked("web2")
    refusing.free.set()
    watches = [Watch(host, application(), 10, ended, lambda name, _: inbox.put(name)) for host in (hanging, refusing)]

    with watching(watches):
        assert inbox.get(timeout=20) == "web2"
        ending = time.monotonic()
    took = time.monotonic() - ending

    hanging.free.set()
    assert took < 5


@pytest.mark.parametrize("interval", ["soon", "0", "0.5", "900ms", "-1", "2d", "10 s", "nan", "1e3"])
def test_monitor_wrong_interval_is_a_mistake_that_names_the_option(interval: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--interval") as caught:
        monitor(Request("production", tmp_path, interval=interval))

    assert repr(interval) in str(caught.value)
