"""The loop of the dashboard: results, and each way to end it."""

from __future__ import annotations

import io
import time
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread

import pytest

from rolling_upgrade.console.output import Output
from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import ConfigError, HostUnreachable
from rolling_upgrade.features.monitor.dashboard import Dashboard, MonitoredHost
from rolling_upgrade.features.monitor.view import Display
from rolling_upgrade.features.monitor.workflow import CheckResult, Command, Inbox, Watch, monitor, running, show
from tests.support.builders import NOW
from tests.support.reports import report
from tests.support.sample import application

BOARD = Dashboard("production", (MonitoredHost("web1", 10), MonitoredHost("web2", 10)))


class Blocked:
    """A host whose connection hangs until the test frees it, and ignores cancellation."""

    def __init__(self, name: str) -> None:
        self.name, self.free = name, Event()

    def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
        self.free.wait(60)
        raise HostUnreachable(f"{self.name}: cannot reach it.")

    def close(self) -> None:
        """Do nothing."""


def shown(*items: CheckResult | Command, stream: io.StringIO | None = None) -> list[str]:
    """Return the lines that `show` writes for these items, without the time."""
    inbox: Inbox = SimpleQueue()
    for item in items:
        inbox.put(item)
    stream = stream or io.StringIO()
    show(BOARD, inbox, Display(Output(stream), lambda: float(NOW)))
    return [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]


def test_show_writes_every_check_until_the_end_command() -> None:
    items: list[CheckResult | Command] = [
        CheckResult("web2", HostUnreachable("web2: cannot reach it."), NOW),
        Command.REDRAW,
        CheckResult("web1", report(), NOW),
        Command.END,
        CheckResult("web1", report(chain="502"), NOW),
    ]

    lines = shown(*items)

    assert lines[0] == "web2  ? unreachable: cannot reach it."
    assert lines[-1] == "web1  healthy  7 ms  backend blue v1"
    assert len(lines) == 3


def test_show_ends_with_a_closed_pipe() -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    shown(CheckResult("web1", report(), NOW), stream=Closed())


def test_show_ends_while_it_waits() -> None:
    inbox: Inbox = SimpleQueue()
    thread = Thread(target=show, args=(BOARD, inbox, Display(Output(io.StringIO()), time.time)), daemon=True)
    thread.start()

    inbox.put(Command.END)
    thread.join(20)

    assert not thread.is_alive()


def test_running_hanging_host_delays_neither_other_hosts_nor_the_end() -> None:
    hanging, inbox, ended = Blocked("web1"), SimpleQueue[str](), Event()
    refusing = Blocked("web2")
    refusing.free.set()
    watches = [Watch(host, application(), 10, ended, lambda name, _: inbox.put(name)) for host in (hanging, refusing)]

    with running(watches):
        assert inbox.get(timeout=20) == "web2"
        stopped_at = time.monotonic()
    elapsed = time.monotonic() - stopped_at

    hanging.free.set()
    assert elapsed < 5


@pytest.mark.parametrize("interval", ["soon", "0", "0.5", "900ms", "-1", "2d", "10 s", "nan", "1e3"])
def test_monitor_invalid_interval_is_an_error_that_names_the_option(interval: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--interval") as caught:
        monitor("production", root=tmp_path, interval=interval)

    assert repr(interval) in str(caught.value)
