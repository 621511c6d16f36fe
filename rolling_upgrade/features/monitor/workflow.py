"""`inv monitor`: check every host repeatedly, one thread for each, and show all on one screen."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread

from rolling_upgrade import config
from rolling_upgrade.engine.host import Cancelled, Host
from rolling_upgrade.engine.model import Application, HealthReport
from rolling_upgrade.errors import ExitCode, RollingError, unexpected
from rolling_upgrade.features.health.workflow import check_host, interval_seconds
from rolling_upgrade.features.monitor.dashboard import Dashboard, MonitoredHost, update
from rolling_upgrade.features.monitor.view import Display, display
from rolling_upgrade.ssh.fleet import Fleet, opened

#: The longest pause before an unreachable host is tried again.
MAX_PAUSE_SECONDS = 30.0
#: The pause between two draws, and how long the threads may take to end.
TICK_SECONDS, JOIN_SECONDS = 1.0, 1.0
#: Ctrl-C, the end of a job, and a terminal that hangs up.
_END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: A resized terminal, and the end of a pause by Ctrl-Z.
_REDRAW_SIGNALS = (signal.SIGWINCH, signal.SIGCONT)


@dataclass(frozen=True)
class CheckResult:
    """One check of one host: the report or the error, and its arrival in Unix seconds."""

    host: str
    result: HealthReport | RollingError
    at: float


class Command(Enum):
    """The effect of a signal on the dashboard."""

    END = "end"
    REDRAW = "redraw"


Inbox = SimpleQueue[CheckResult | Command]


def monitor(env: str | None, *, root: Path, hosts: tuple[str, ...] = (), interval: str = "") -> ExitCode:
    """Show the hosts until Ctrl-C or SIGTERM; an unreachable host keeps its row. Always returns DONE."""
    seconds = interval_seconds(interval)
    inbox: Inbox = SimpleQueue()
    _catch_signals(inbox)
    environment = config.load(env, root=root, hosts=hosts)
    with opened(environment) as fleet:
        watches = _watches(fleet, seconds, inbox)
        monitored = tuple(MonitoredHost(watch.host.name, watch.interval_seconds) for watch in watches)
        # The display closes first: the operator has the prompt back while connections are still closing.
        with running(watches), display(sys.stdout, environment.secrets) as screen:
            show(Dashboard(environment.name, monitored), inbox, screen)
    return ExitCode.DONE


def _catch_signals(inbox: Inbox) -> None:
    """Turn signals into commands in the inbox for the rest of the process, so that none interrupts a drawing."""
    for command, numbers in ((Command.END, _END_SIGNALS), (Command.REDRAW, _REDRAW_SIGNALS)):
        for number in numbers:
            signal.signal(number, lambda *_, command=command: inbox.put(command))


def _watches(fleet: Fleet, interval: float | None, inbox: Inbox) -> list[Watch]:
    ended = Event()

    def on_result(host: str, result: HealthReport | RollingError) -> None:
        inbox.put(CheckResult(host, result, time.time()))

    apps = [(host, fleet.targets[host.name].application) for host in fleet.hosts]
    return [Watch(host, app, interval or app.watch.interval_seconds, ended, on_result) for host, app in apps]


@dataclass(frozen=True)
class Watch:
    """Checks one host repeatedly, `interval_seconds` after each answer, until `ended` is set.

    `on_result` receives the host's name with each report or error.
    """

    host: Host
    application: Application
    interval_seconds: float
    ended: Event
    on_result: Callable[[str, HealthReport | RollingError], None]

    def run(self) -> None:
        """Check until `ended` is set; pauses after an unreachable host grow up to MAX_PAUSE_SECONDS."""
        failures = 0
        while not self.ended.is_set():
            try:
                result = self._check()
            except Cancelled:
                return
            self.on_result(self.host.name, result)
            failures = failures + 1 if isinstance(result, RollingError) else 0
            self.ended.wait(pause_seconds(failures, self.interval_seconds))

    def _check(self) -> HealthReport | RollingError:
        try:
            return check_host(self.host, self.application, cancelled=self.ended)
        except Cancelled:
            raise
        except RollingError as error:
            return error
        except Exception as error:  # noqa: BLE001 - one host must not stop the others
            return unexpected(self.host.name, error, RollingError, next_step="the host is checked again")


def pause_seconds(failures: int, interval_seconds: float) -> float:
    """Return the pause after consecutive failures: 1, 2, 4 … seconds; without failures the interval."""
    if not failures:
        return interval_seconds
    return min(2.0 ** min(failures - 1, 10), MAX_PAUSE_SECONDS)


@contextmanager
def running(watches: Sequence[Watch]) -> Iterator[None]:
    """Run each watch on its own thread; a thread that is still connecting at the end is abandoned."""
    threads = [Thread(target=watch.run, name=watch.host.name, daemon=True) for watch in watches]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for watch in watches:
            watch.ended.set()
        deadline = time.monotonic() + JOIN_SECONDS
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))


def show(board: Dashboard, inbox: Inbox, screen: Display) -> None:
    """Apply results to the dashboard and draw it once a second, until the command to end or a closed display."""
    due = time.monotonic()
    while not screen.closed:
        left = due - time.monotonic()
        if left <= 0:
            screen.tick(board)
            due = time.monotonic() + TICK_SECONDS
            continue
        try:
            item = inbox.get(timeout=left)
        except Empty:
            continue
        if item is Command.END:
            return
        if isinstance(item, Command):
            screen.tick(board, redraw=True)
            continue
        board, events = update(board, item.host, item.result, item.at)
        screen.show_check(board, item.host, events)
