"""The loop: look, decide, act, remember, wait. What it prints is its log. The rules are in plans/watch.py."""

from __future__ import annotations

import fcntl
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from fabfile.commands import health, verdict
from fabfile.commands import watchdog as commands
from fabfile.errors import ExitCode, LockHeld, RollingError
from fabfile.model import Application, HealthReport
from fabfile.model.watch import RECOVERIES, Act, Decision, Look, Memory
from fabfile.plans.watch import decide, recovered
from fabfile.remote.local_host import LocalHost
from fabfile.watchdog import keeping, seeing
from fabfile.watchdog.keeping import Settings, say
from fabfile.watchdog.metering import Metering
from fabfile.watchdog.outbox import Sender
from fabfile.watchdog.telling import Telling

#: How long one look may take: a database that is read through is the longest part.
LOOK_SECONDS = 180.0
#: Pause between two quick requests, and between two looks while something is wrong.
PULSE_SECONDS, AGAIN_SECONDS = 3.0, 1.0
#: The log is cut to its newer half beyond this.
LONGEST_LOG = 1_000_000


def watch(home: Path) -> ExitCode:
    """Watch until ended. Raises LockHeld when another one watches the application, ConfigError without settings."""
    settings = keeping.load(home)
    with (keeping.directory(home) / "running").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LockHeld(f"another watchdog of {settings.app} runs on this host.") from error
        say(f"watching {settings.app} every {settings.rules.interval_seconds:g} s")
        watchdog = Watchdog(home, settings, time.monotonic, time.sleep)
        while True:
            watchdog.wait(watchdog.once())


class Watchdog:
    """One application under watch. `clock` gives seconds that never jump."""

    def __init__(
        self, home: Path, settings: Settings, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self._home, self._settings, self._clock, self._sleep = home, settings, clock, sleep
        self._host = LocalHost(settings.host)
        self._memory = keeping.recall(home)
        self._restarts: seeing.Restarts = {}
        self._app: Application | None = None
        self._telling, self._sender = Telling(home, settings), Sender(home)
        self._metering = Metering(home, settings)
        self._said = self._missed = ""
        self._well = False

    def once(self) -> float:
        """Look once, do what follows, have it told; the seconds until the next look."""
        pause = self._once()
        self._sender.send(self._clock())
        return pause

    def _once(self) -> float:
        self._trim_log()
        with suppress(OSError):
            (keeping.directory(self._home) / "alive").touch()
        releases = keeping.history(self._home)
        found = keeping.running(self._home, releases)
        if found is None:
            self._tell("nothing is deployed here yet")
            self._metering.looked(None, None, releases, self._memory)
            return self._settings.rules.interval_seconds
        self._app = replace(found[1], thresholds=self._settings.thresholds)
        try:
            report = self._look(self._app)
        except (RollingError, ValueError) as error:
            self._tell(f"the host could not be looked at: {error}")
            self._telling.blind(str(error))
            self._metering.looked(self._app, None, releases, self._memory)
            return self._settings.rules.interval_seconds
        look = seeing.look(self._app, report, self._restarts, releases, self._settings.rules, self._missed)
        self._missed, self._well = "", not look.troubles
        self._restarts = {**self._restarts, **seeing.restarts(report)}
        memory, decision = decide(self._memory, look, self._settings.rules, self._clock())
        self._remember(memory)
        self._tell(f"{decision.act.value}: {decision.reason}" if decision.reason else "all is well")
        self._telling.looked(report, look, decision, memory)
        self._metering.looked(self._app, report, releases, memory)
        if decision.act in {*RECOVERIES, Act.PRUNE}:
            self._act(decision)
        return self._pause(look)

    def wait(self, seconds: float) -> None:
        """Wait, with quick requests in between where all was well; the first that fails ends the wait."""
        until = self._clock() + seconds
        while (left := until - self._clock()) > 0:
            self._sleep(min(left, PULSE_SECONDS))
            if self._app is not None and self._well:
                self._missed = missed(self._app)
                if self._missed:
                    return

    def _look(self, app: Application) -> HealthReport:
        answer = self._host.run(health.check(app), timeout_seconds=LOOK_SECONDS)
        return verdict.parse(app, self._host.name, answer.output)

    def _pause(self, look: Look) -> float:
        """Soon again while something is unwell; a crash that Podman mended is counted at the usual pace."""
        acute = [one for one in look.troubles if one.misses]
        waits = not acute or look.held or look.hopeless or self._memory.given_up or not self._settings.rules.enabled
        return self._settings.rules.interval_seconds if waits else AGAIN_SECONDS

    def _act(self, decision: Decision) -> None:
        app = self._settings.app
        since = self._memory.pulse(decision.service).since
        seconds = self._clock() - since if since is not None else 0.0
        script = commands.act(str(self._home), app, decision.act, decision.service, seconds, decision.reason)
        try:
            answer = self._host.run(script, timeout_seconds=commands.RECOVERY_SECONDS)
            code, said = answer.status, answer.last_words
        except RollingError as error:
            code, said = int(ExitCode.FAILED), str(error)
        what = f"{decision.act.value} {decision.service}".strip()
        self._tell(f"{what}: {'done' if code == 0 else f'failed ({code}) {said}'.strip()}")
        if decision.act in RECOVERIES and code != ExitCode.LOCKED:
            self._remember(recovered(self._memory, decision.service, self._clock()))
            self._metering.recovered(decision.act, failed=code != 0)

    def _remember(self, memory: Memory) -> None:
        self._memory = memory
        keeping.remember(self._home, memory)

    def _tell(self, text: str) -> None:
        """Say what is new: the same again is not repeated."""
        if text != self._said:
            say(text)
        self._said = text

    def _trim_log(self) -> None:
        path = keeping.directory(self._home) / "log"
        if path.exists() and path.stat().st_size > LONGEST_LOG:
            newer = path.read_bytes()[-LONGEST_LOG // 2 :].partition(b"\n")[2]
            with path.open("r+b") as file:
                file.truncate(0)
                file.write(newer)


def missed(app: Application) -> str:
    """The first service that does not answer through Nginx, '' when all do; a few milliseconds."""
    for service in app.services:
        if not _answers(service.stable_port, service.gate.path, service.gate.timeout_seconds):
            return service.name
    if app.full_chain is None:
        return ""
    first = app.service(app.full_chain.service)
    return "" if _answers(first.stable_port, app.full_chain.path, first.gate.timeout_seconds) else first.name


def _answers(port: int, path: str, seconds: float) -> bool:
    """Ask by hand: an HTTP library would double the memory of a program that runs all day."""
    asked = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
            connection.sendall(asked.encode())
            return re.match(rb"HTTP/1\.[01] 2", connection.recv(64)) is not None
    except OSError:
        return False
