"""A live view of every host: a thread each looks again and again, so that one that is lost delays no other."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fabfile import config
from fabfile.commands import health as commands
from fabfile.commands import verdict
from fabfile.errors import ConfigError, ExitCode, Mistake, RollingError
from fabfile.model import Application, Environment, HealthReport
from fabfile.remote.host import Cancelled, Host
from fabfile.report.dashboard import Dashboard, Happening, Row
from fabfile.report.screen import Screen, choose_screen
from fabfile.workflows.fleet import opened
from fabfile.workflows.health import LOOK_SECONDS

#: Pause before a host that was not reached is tried again; it doubles up to the interval.
AGAIN_SECONDS = 1.0
DRAW_SECONDS = 1.0
#: How long the threads are waited for at the end.
END_SECONDS = 2.0


@dataclass(frozen=True)
class Request:
    """What the operator asked for."""

    environment: str | None
    root: Path
    hosts: tuple[str, ...] = ()
    interval: str = ""


def monitor(request: Request) -> ExitCode:
    """Show how every host is until Ctrl-C or SIGTERM, or until nobody reads; DONE then."""
    interval = _interval(request.interval)
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    seconds = interval or environment.targets[0].application.watch.interval_seconds
    board = Dashboard(environment.name, seconds, {target.name: Row(target.name) for target in environment.targets})
    screen = choose_screen(board, sys.stdout, os.environ, environment.secrets)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            _watch(environment, board, screen, seconds)
    finally:
        signal.signal(signal.SIGTERM, before)
    return ExitCode.DONE


def _interval(text: str) -> float | None:
    """The seconds that were asked for. Raises ConfigError."""
    from fabfile.config import forms

    form = forms.duration(1, 86_400)
    try:
        return form(text) if text else None
    except ValueError as error:
        mistake = Mistake("command line", "--interval", repr(text), form.expected)
        raise ConfigError("The command line has a mistake; nothing was contacted.", [mistake]) from error


def _watch(environment: Environment, board: Dashboard, screen: Screen, seconds: float) -> None:
    lock, ended = threading.Lock(), threading.Event()

    def put(row: Row, happenings: tuple[Happening, ...] = (), *, looked: bool = True) -> None:
        with lock:
            board.put(row, happenings)
            if looked:
                screen.looked(row.host, happenings, time.time())

    with opened(environment) as fleet, screen:
        watchers = [
            threading.Thread(
                target=Watcher(host, fleet.targets[host.name].application, seconds, put, ended).run, daemon=True
            )
            for host in fleet.hosts
        ]
        for watcher in watchers:
            watcher.start()
        try:
            while not screen.gone:
                with lock:
                    screen.draw(time.time())
                ended.wait(DRAW_SECONDS)
        finally:
            ended.set()
            until = time.monotonic() + END_SECONDS
            for watcher in watchers:
                watcher.join(max(until - time.monotonic(), 0))


class Watcher:
    """One host, looked at until the end; what was seen goes to `put`."""

    def __init__(
        self, host: Host, app: Application, seconds: float, put: Callable[..., None], ended: threading.Event
    ) -> None:
        self._host, self._app, self._seconds, self._put, self._ended = host, app, seconds, put, ended
        self._row, self._failures = Row(host.name), 0

    def run(self) -> None:
        """Look, tell, wait."""
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                self._once()
            except Cancelled:
                return
            pause = self._seconds
            if self._failures:
                pause = min(AGAIN_SECONDS * 2 ** min(self._failures - 1, 10), self._seconds)
            self._ended.wait(max(began + pause - time.monotonic(), AGAIN_SECONDS))

    def _once(self) -> None:
        self._row = self._row.asked(time.time())
        self._put(self._row, looked=False)
        try:
            report = self._look()
        except (RollingError, ValueError) as error:
            if self._ended.is_set():
                return
            self._failures += 1
            self._row, happenings = self._row.missed(str(error), time.time())
        else:
            self._failures = 0
            self._row, happenings = self._row.seen(report, time.time())
        self._put(self._row, happenings)

    def _look(self) -> HealthReport:
        answer = self._host.run(commands.check(self._app), timeout_seconds=LOOK_SECONDS, cancelled=self._ended)
        return verdict.parse(self._app, self._host.name, answer.output, time.time())
