"""The watchdog's loop: observe, decide, act, save, wait. Its standard output is its log."""

from __future__ import annotations

import fcntl
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rolling_upgrade.engine import request
from rolling_upgrade.engine.host import LocalHost
from rolling_upgrade.engine.model import Application, HealthReport
from rolling_upgrade.engine.request import Request
from rolling_upgrade.engine.shell import Script, direct, quote, shell_join
from rolling_upgrade.errors import ExitCode, LockHeld, RollingError
from rolling_upgrade.features.health import shell as health
from rolling_upgrade.features.watchdog import policy, state_store
from rolling_upgrade.features.watchdog.alerts import AlertNotifier
from rolling_upgrade.features.watchdog.metrics import MetricsWriter
from rolling_upgrade.features.watchdog.outbox import Sender
from rolling_upgrade.features.watchdog.policy import (
    RECOVERIES,
    Decision,
    HealthObservation,
    RecoveryAction,
    RecoveryState,
)
from rolling_upgrade.features.watchdog.state_store import Settings, log

#: Limit of one observation; checking a whole database takes longest.
OBSERVATION_SECONDS = 180.0
#: Pause between two quick requests, and between two observations while a service fails.
QUICK_REQUEST_SECONDS, FAILING_SECONDS = 3.0, 1.0
#: Bytes after which the log is cut to its newer half.
LONGEST_LOG = 1_000_000

#: Limit of a recovery: a redeploy with its gates, and its undo.
RECOVERY_SECONDS = 3600


def watch(home: Path) -> ExitCode:
    """Watch until terminated.

    Raises LockHeld while another watchdog watches the application, ConfigError without settings.
    """
    settings = state_store.load_settings(home)
    with (state_store.directory(home) / "running").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LockHeld(f"another watchdog of {settings.app} runs on this host.") from error
        log(f"watching {settings.app} every {settings.rules.interval_seconds:g} s")
        watchdog = Watchdog(home, settings, time.monotonic, time.sleep)
        while True:
            watchdog.wait(watchdog.observe_once())


class Watchdog:
    """The watchdog of one application. `clock` gives seconds that never jump."""

    def __init__(
        self, home: Path, settings: Settings, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self._home, self._settings, self._clock, self._sleep = home, settings, clock, sleep
        self._host = LocalHost(settings.host)
        self._state = state_store.load_state(home)
        self._restart_counts: policy.RestartCounts = {}
        self._app: Application | None = None
        self._alerts, self._sender = AlertNotifier(home, settings), Sender(home)
        self._metrics = MetricsWriter(home, settings)
        self._logged = self._missed = ""
        self._healthy = False

    def observe_once(self) -> float:
        """Observe the host, act on the decision and send waiting messages; return the seconds until the next call."""
        pause = self._observe_and_act()
        self._sender.send(self._clock())
        return pause

    def _observe_and_act(self) -> float:
        self._trim_log()
        with suppress(OSError):
            (state_store.directory(self._home) / "alive").touch()
        releases = state_store.recent_releases(self._home)
        app = state_store.live_application(self._home, releases)
        if app is None:
            self._log_change("nothing is deployed here yet")
            self._metrics.write(None, None, releases, self._state)
            return self._settings.rules.interval_seconds
        # The host knows which accessories are supposed to run now; the release, which were when it was deployed.
        self._app = replace(app, thresholds=self._settings.thresholds, accessories=())
        try:
            report = self._health_report(self._app)
        except (RollingError, ValueError) as error:
            self._log_change(f"the host could not be observed: {error}")
            self._alerts.observation_failed(str(error))
            self._metrics.write(self._app, None, releases, self._state)
            return self._settings.rules.interval_seconds
        rules = self._settings.rules
        observation = policy.classify(self._app, report, self._restart_counts, releases, rules, self._missed)
        self._missed, self._healthy = "", not observation.failures
        self._restart_counts = {**self._restart_counts, **policy.restart_counts(report)}
        state, decision = policy.decide(self._state, observation, rules, self._clock())
        self._save(state)
        self._log_change(
            f"{decision.action.value}: {decision.reason}" if decision.reason else "all services are healthy"
        )
        self._alerts.observed(report, observation, decision, state)
        self._metrics.write(self._app, report, releases, state)
        if decision.action in {*RECOVERIES, RecoveryAction.PRUNE}:
            self._act(decision)
        return self._pause(observation)

    def wait(self, seconds: float) -> None:
        """Wait. While all services are healthy, send them quick requests; the first one that fails ends the wait."""
        until = self._clock() + seconds
        while (left := until - self._clock()) > 0:
            self._sleep(min(left, QUICK_REQUEST_SECONDS))
            if self._app is not None and self._healthy:
                self._missed = unanswered(self._app)
                if self._missed:
                    return

    def _health_report(self, app: Application) -> HealthReport:
        answer = self._host.run(health.check(app), timeout_seconds=OBSERVATION_SECONDS)
        return health.parse(app, self._host.name, answer.output)

    def _pause(self, observation: HealthObservation) -> float:
        """Seconds until the next observation: few while a service fails, except after a crash that Podman fixed."""
        rules = self._settings.rules
        urgent = any(failure.failed_checks for failure in observation.failures)
        blocked = observation.lock_holder or observation.unrecoverable or self._state.given_up or not rules.enabled
        return FAILING_SECONDS if urgent and not blocked else rules.interval_seconds

    def _act(self, decision: Decision) -> None:
        since = self._state.counter(decision.service).since
        seconds = self._clock() - since if since is not None else 0.0
        script = recovery_script(
            str(self._home), self._settings.app, decision.action, decision.service, seconds, decision.reason
        )
        try:
            answer = self._host.run(script, timeout_seconds=RECOVERY_SECONDS)
            code, output = answer.status, answer.output_tail
        except RollingError as error:
            code, output = int(ExitCode.FAILED), str(error)
        action = f"{decision.action.value} {decision.service}".strip()
        self._log_change(f"{action}: {'done' if code == 0 else f'failed ({code}) {output}'.strip()}")
        if decision.action in RECOVERIES and code != ExitCode.LOCKED:
            self._save(policy.after_recovery(self._state, decision.service, self._clock()))
            self._metrics.recovered(decision.action, failed=code != 0)

    def _save(self, state: RecoveryState) -> None:
        self._state = state
        state_store.save_state(self._home, state)

    def _log_change(self, text: str) -> None:
        """Log a text unless it is the one logged last."""
        if text != self._logged:
            log(text)
        self._logged = text

    def _trim_log(self) -> None:
        path = state_store.directory(self._home) / "log"
        if path.exists() and path.stat().st_size > LONGEST_LOG:
            newer = path.read_bytes()[-LONGEST_LOG // 2 :].partition(b"\n")[2]
            with path.open("r+b") as file:
                file.truncate(0)
                file.write(newer)


def recovery_script(home: str, app: str, action: RecoveryAction, service: str, seconds: float, reason: str) -> Script:
    """Run one recovery in a unit of its own, outside the watchdog's limits and lifetime, and wait for its end.

    `seconds` is how long the failure has lasted. The recovery writes to the watchdog's log. Each unit has a new name:
    container processes started by a recovery may stay in its unit, and then the unit stays.
    Source: systemd-run(1): `--wait` returns the unit's exit status, `--collect` removes a failed unit.
    """
    program = ["/usr/bin/env", "python3", "-I", f"{home}/watchdog/watchdog.pyz", "recover", home, action.value, service]
    # Source: systemd.service(5): the manager expands `$NAME`.
    program += [f"{seconds:.0f}", reason.replace("$", "$$")]
    log = f"append:{home}/watchdog/log"
    rules = ("KillMode=process", "UMask=0077", f"StandardOutput={log}", f"StandardError={log}")
    start = shell_join(
        "systemd-run", "--user", "--quiet", "--wait", "--collect", *(f"--property={rule}" for rule in rules)
    )
    return direct(f'{start} --unit {quote(f"{app}-recovery")}-"$(date +%s%N)" {shell_join(*program)}')


def unanswered(app: Application) -> str:
    """Return the first service that does not answer through Nginx, or ''. Takes a few milliseconds."""
    for service in app.http_services:
        if not _answers(request.to_service(app, service, service.service_port), service.gate.timeout_seconds):
            return service.name
    if app.full_chain is None:
        return ""
    first = app.service(app.full_chain.service)
    return "" if _answers(request.of_chain(app, app.full_chain), first.gate.timeout_seconds) else first.name


def _answers(asked: Request, seconds: float) -> bool:
    """Send a request over a plain socket: an HTTP library would double the memory of a program that runs all day."""
    address, message = request.over_socket(asked)
    try:
        with socket.create_connection(address, timeout=seconds) as connection:
            connection.sendall(message)
            return re.match(rb"HTTP/1\.[01] 2", connection.recv(64)) is not None
    except OSError:
        return False
