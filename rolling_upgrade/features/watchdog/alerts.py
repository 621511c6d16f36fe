"""The watchdog's alerts: one for each failing service and each other failing check, deduplicated.

A service that a recovery is about to fix gets no alert: the recovery sends a message of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.model import Check, HealthReport, Kind, Notice, Occasion, WatchRules
from rolling_upgrade.engine.serialization import from_plain, to_plain
from rolling_upgrade.errors import PROGRAM
from rolling_upgrade.features.watchdog import outbox, state_store
from rolling_upgrade.features.watchdog.policy import RECOVERIES, Decision, Failure, HealthObservation, RecoveryState
from rolling_upgrade.features.watchdog.state_store import Settings

#: Checks that belong to services; they are part of the alert of a failing service.
_SERVICE_CHECKS = {Kind.CONTAINER, Kind.HTTP, Kind.READY}
#: The number of failed recoveries of a service that raise no alert yet.
_SILENT_ATTEMPTS = 1

#: Consecutive failures of checks, by their names.
FailureCounts = Mapping[str, int]


@dataclass(frozen=True)
class Alert:
    """A check that fails on a host now.

    `given_up`: the watchdog gave up recovery and needs an operator; an alert for which this becomes true is sent again.
    """

    host: str
    check: str
    cause: str = ""
    next_command: str = ""
    given_up: bool = False

    @property
    def key(self) -> str:
        """Identifies the failure: equal in every report of it."""
        return f"{self.host} {self.check}"


@dataclass(frozen=True)
class TrackedAlert:
    """An alert over time: when it started, was last sent and last seen, in Unix seconds.

    `times` counts how often it came back within the repeat interval; an alert that is not `open` is resolved. The keys
    of the fields are those of alerts.json on a host.
    """

    alert: Alert
    thread: str
    since: float
    sent_at: float = field(metadata={"key": "told_at"})
    seen_at: float
    times: int = 0
    open: bool = True


#: Tracked alerts by their key.
TrackedAlerts = Mapping[str, TrackedAlert]


@dataclass(frozen=True)
class AlertDeduplicator:
    """Decides which alerts are sent: one message when an alert starts, one after each repeat interval, one when it ends.

    An alert is resolved after a quiet period, which doubles with each recent recurrence, so that a flapping check is one
    alert rather than a message a minute. The caller keeps the tracked alerts.
    """

    application: str
    environment: str
    repeat_seconds: float
    quiet_seconds: float

    def update(
        self, tracked: TrackedAlerts, alerts: Sequence[Alert], now: float
    ) -> tuple[TrackedAlerts, tuple[Notice, ...]]:
        """Track the firing alerts; return the alerts to track from now on, and the notices to send.

        `now` is Unix seconds and may jump.
        """
        updated = {key: _not_in_future(known, now) for key, known in tracked.items()}
        firing = {alert.key: alert for alert in alerts}
        notices = [self._update_firing(updated, alert, now) for alert in firing.values()]
        notices += [self._update_absent(updated, key, now) for key in list(updated) if key not in firing]
        return updated, tuple(notice for notice in notices if notice is not None)

    def _update_firing(self, updated: dict[str, TrackedAlert], alert: Alert, now: float) -> Notice | None:
        known = updated.get(alert.key)
        without_cause = replace(alert, cause="")
        if known is None or not known.open:
            times = known.times + 1 if known else 0
            new = TrackedAlert(without_cause, self._thread(alert, now), now, now, now, times)
            updated[alert.key] = new
            first = Occasion.RECOVERY_GIVEN_UP if alert.given_up else Occasion.CHECK_FAILING
            return self._notice(first, new, now, alert.cause)
        gave_up = alert.given_up and not known.alert.given_up
        due = gave_up or now - known.sent_at >= self.repeat_seconds
        known = replace(known, alert=without_cause, seen_at=now, sent_at=now if due else known.sent_at)
        updated[alert.key] = known
        again = Occasion.RECOVERY_GIVEN_UP if gave_up else Occasion.CHECK_AGAIN
        return self._notice(again, known, now, alert.cause) if due else None

    def _update_absent(self, updated: dict[str, TrackedAlert], key: str, now: float) -> Notice | None:
        known = updated[key]
        absent = now - known.seen_at
        if not known.open:
            if absent >= self.repeat_seconds:
                del updated[key]
            return None
        if absent < min(self.quiet_seconds * 2 ** min(known.times, 16), self.repeat_seconds):
            return None
        updated[key] = replace(known, open=False)
        return self._notice(Occasion.CHECK_RESOLVED, known, now, "")

    def _thread(self, alert: Alert, now: float) -> str:
        return f"{self.application} {self.environment} {alert.key} {int(now)}"

    def _notice(self, occasion: Occasion, tracked: TrackedAlert, now: float, cause: str) -> Notice:
        resolved = occasion is Occasion.CHECK_RESOLVED
        return Notice(
            occasion,
            self.application,
            self.environment,
            tracked.thread,
            now,
            hosts=(tracked.alert.host,),
            check=tracked.alert.check,
            seconds=(tracked.seen_at if resolved else now) - tracked.since,
            cause=cause,
            next_command="" if resolved else tracked.alert.next_command,
        )


def _not_in_future(tracked: TrackedAlert, now: float) -> TrackedAlert:
    """Limit all times to now: the clock may have been set back."""
    since, sent_at, seen_at = (min(at, now) for at in (tracked.since, tracked.sent_at, tracked.seen_at))
    return replace(tracked, since=since, sent_at=sent_at, seen_at=seen_at)


def dump_tracked(tracked: TrackedAlerts) -> str:
    """The content of a file of tracked alerts."""
    return json.dumps([to_plain(alert) for alert in tracked.values()])


def load_tracked(text: str) -> TrackedAlerts:
    """Parse the output of `dump_tracked`; empty for malformed text, which costs at most a repeated message."""
    try:
        tracked = [_load_alert(row) for row in untrusted.json_value(text)]
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
    return {known.alert.key: known for known in tracked}


def _load_alert(row: dict[str, object]) -> TrackedAlert:
    times = {key: untrusted.moment(row[key]) for key in ("since", "told_at", "seen_at")}
    tracked: TrackedAlert = from_plain(TrackedAlert, {**row, **times})
    return replace(tracked, times=untrusted.integer(tracked.times))


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
        self._tracked = load_tracked(state_store.read_or_empty(self._file))
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
                state_store.replace_file(self._file, dump_tracked(tracked))


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
        # The result of a job stays until its next run, which may be soon.
        needed = 1 if check.kind is Kind.JOB else rules.failures
        covered = check.kind in _SERVICE_CHECKS and (observation.failures or observation.unrecoverable)
        if not covered and counts.get(check.name, 0) >= needed:
            yield check
