"""Monitor: every host of an environment on one screen, looked at by a thread each, until Ctrl-C. The story only."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread

from fabfile import config
from fabfile.errors import ExitCode, RollingError
from fabfile.model import HealthReport
from fabfile.remote.looking import Watch
from fabfile.report.dashboard import Dashboard, Watched, looked
from fabfile.report.screen import Display, display
from fabfile.workflows.fleet import Fleet, opened
from fabfile.workflows.health import interval_seconds

#: How often the screen is drawn, and how long the threads get at the end.
TICK_SECONDS, PARTING_SECONDS = 1.0, 1.0
#: What ends the dashboard: Ctrl-C, the end of a job, a terminal that hangs up.
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: What makes it draw at once: another size of the terminal, and the end of a pause by Ctrl-Z.
_REDRAWS = (signal.SIGWINCH, signal.SIGCONT)


@dataclass(frozen=True)
class Request:
    """What the operator asked for, as it was typed."""

    environment: str | None
    root: Path
    hosts: tuple[str, ...] = ()
    interval: str = ""


@dataclass(frozen=True)
class News:
    """What one look at one host found, and when it was had (Unix seconds)."""

    host: str
    found: HealthReport | RollingError
    at: float


class Told(Enum):
    """What the process was told by a signal."""

    END = "end"
    REDRAW = "redraw"


Inbox = SimpleQueue[News | Told]


def monitor(request: Request) -> ExitCode:
    """Show the hosts until Ctrl-C or SIGTERM; a host that cannot be reached is a row like any other. Always DONE."""
    wanted = interval_seconds(request.interval)
    inbox: Inbox = SimpleQueue()
    _take_signals(inbox)
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    with opened(environment) as fleet:
        watches = _watches(fleet, wanted, inbox)
        hosts = tuple(Watched(one.host.name, one.interval_seconds) for one in watches)
        # The screen is given back first: whoever ends it has the prompt while connections are closed.
        with watching(watches), display(sys.stdout, environment.secrets) as shown:
            show(Dashboard(environment.name, hosts), inbox, shown)
    return ExitCode.DONE


def _take_signals(inbox: Inbox) -> None:
    """From here to the end of the process a signal is a word in the inbox, so that none breaks into a drawing."""
    for told, numbers in ((Told.END, _ENDS), (Told.REDRAW, _REDRAWS)):
        for number in numbers:
            signal.signal(number, lambda *_, told=told: inbox.put(told))


def _watches(fleet: Fleet, wanted: float | None, inbox: Inbox) -> list[Watch]:
    ended = Event()

    def tell(host: str, found: HealthReport | RollingError) -> None:
        inbox.put(News(host, found, time.time()))

    apps = [(host, fleet.targets[host.name].application) for host in fleet.hosts]
    return [Watch(host, app, wanted or app.watch.interval_seconds, ended, tell) for host, app in apps]


@contextmanager
def watching(watches: Sequence[Watch]) -> Iterator[None]:
    """Each host looked at by a thread of its own meanwhile; who is still connecting at the end is not waited for."""
    threads = [Thread(target=watch.run, name=watch.host.name, daemon=True) for watch in watches]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for watch in watches:
            watch.ended.set()
        deadline = time.monotonic() + PARTING_SECONDS
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))


def show(board: Dashboard, inbox: Inbox, shown: Display) -> None:
    """Fold what comes into the dashboard and show it, once a second, until the word to end or until nobody reads."""
    due = time.monotonic()
    while not shown.gone:
        left = due - time.monotonic()
        if left <= 0:
            shown.tick(board)
            due = time.monotonic() + TICK_SECONDS
            continue
        try:
            news = inbox.get(timeout=left)
        except Empty:
            continue
        if news is Told.END:
            return
        if isinstance(news, Told):
            shown.tick(board, anew=True)
            continue
        board, fresh = looked(board, news.host, news.found, news.at)
        shown.look(board, news.host, fresh)
