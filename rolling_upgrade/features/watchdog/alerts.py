"""Derives alerts from an observation, one for each failing service and each other failing check, and sends them.

A service that a recovery is about to fix gets no alert: the recovery sends a message of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rolling_upgrade.engine.model import Check, HealthReport, Kind, WatchRules
from rolling_upgrade.errors import PROGRAM
from rolling_upgrade.features.notify import deduplication
from rolling_upgrade.features.notify.deduplication import Alert, AlertDeduplicator
from rolling_upgrade.features.watchdog import outbox, state_store
from rolling_upgrade.features.watchdog.policy import (
    RECOVERIES,
    Decision,
    Failure,
    HealthObservation,
    RecoveryState,
)
from rolling_upgrade.features.watchdog.state_store import Settings

#: Checks that belong to services; they are part of the alert of a failing service.
_SERVICE_CHECKS = {Kind.CONTAINER, Kind.HTTP}
#: Recoveries of a service that may fail before it gets an alert.
_SILENT_ATTEMPTS = 1

#: Consecutive failures of checks, by their names.
FailureCounts = Mapping[str, int]


class AlertNotifier:
    """Sends alerts through the outbox. A file keeps the open ones, so that a restarted watchdog repeats none."""

    def __init__(self, home: Path, settings: Settings) -> None:
        self._home, self._settings = home, settings
        rules = settings.rules
        quiet = rules.failures * rules.interval_seconds
        self._deduplicator = AlertDeduplicator(
            settings.app, settings.environment, settings.channels.repeat_seconds, quiet
        )
        self._file = state_store.directory(home) / "alerts.json"
        self._tracked = deduplication.load(state_store.read_or_empty(self._file))
        self._counts: dict[str, int] = {}
        self._failed_observations = 0

    def observed(
        self, report: HealthReport, observation: HealthObservation, decision: Decision, state: RecoveryState
    ) -> None:
        """Notify after an observation, unless another run is changing the host."""
        self._failed_observations = 0
        if observation.lock_holder:
            return
        self._counts = count_failures(self._counts, report)
        self._notify(alerts(self._settings, report, observation, decision, state, self._counts))

    def observation_failed(self, cause: str) -> None:
        """Notify after an observation that failed: the open alerts stay open, and repeated failure is one itself."""
        self._failed_observations += 1
        if self._failed_observations < self._settings.rules.failures:
            return
        still_open = [tracked.alert for tracked in self._tracked.values() if tracked.open]
        command = f"{PROGRAM} monitor.logs --env {self._settings.environment} --hosts {self._settings.host}"
        self._notify([*still_open, Alert(self._settings.host, "watchdog", cause, command)])

    def _notify(self, alerts: Sequence[Alert]) -> None:
        tracked, notices = self._deduplicator.update(self._tracked, alerts, time.time())
        for notice in notices:
            outbox.put(self._home, notice, self._settings.channels)
        if tracked != self._tracked:
            self._tracked = tracked
            with suppress(OSError):
                state_store.replace_file(self._file, deduplication.dump(tracked))


def count_failures(counts: FailureCounts, report: HealthReport) -> dict[str, int]:
    """The counts after one more report; a check that passed has none."""
    return {check.name: counts.get(check.name, 0) + 1 for check in report.failed}


def alerts(
    settings: Settings,
    report: HealthReport,
    observation: HealthObservation,
    decision: Decision,
    state: RecoveryState,
    counts: FailureCounts,
) -> tuple[Alert, ...]:
    """Every alert after an observation; `state` and `counts` include it."""
    host, rules = settings.host, settings.rules
    health = f"{PROGRAM} health --env {settings.environment} --hosts {host} --once --verbose"
    inspect = f"{PROGRAM} inspect --env {settings.environment} --host {host}"
    if observation.unrecoverable:
        service_alerts = [Alert(host, "nginx", observation.unrecoverable, health)]
    else:
        command = inspect if state.given_up else health
        failures = [failure for failure in observation.failures if _is_due(failure, decision, state, rules)]
        service_alerts = [
            Alert(host, failure.service, _cause(failure, report), command, given_up=state.given_up)
            for failure in failures
        ]
    others = _other_checks(report, observation, counts, rules)
    return (*service_alerts, *(Alert(host, check.name, check.detail, health) for check in others))


def _is_due(failure: Failure, decision: Decision, state: RecoveryState, rules: WatchRules) -> bool:
    counter = state.counter(failure.service)
    if state.given_up or counter.attempts > _SILENT_ATTEMPTS:
        return True
    recovering = decision.action in RECOVERIES and decision.service == failure.service
    return not recovering and counter.worst >= rules.failures


def _cause(failure: Failure, report: HealthReport) -> str:
    """All failing checks of a service."""
    own = [check for check in report.failed if check.kind in _SERVICE_CHECKS and check.service == failure.service]
    return "\n".join(f"{check.name}: {check.detail}" for check in own) or failure.reason


def _other_checks(
    report: HealthReport, observation: HealthObservation, counts: FailureCounts, rules: WatchRules
) -> Iterator[Check]:
    for check in report.failed:
        covered = check.kind in _SERVICE_CHECKS and (observation.failures or observation.unrecoverable)
        if not covered and counts.get(check.name, 0) >= rules.failures:
            yield check
