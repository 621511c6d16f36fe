"""Alert deduplication: one message when an alert starts, one after each repeat interval, one when it is resolved.

An alert is resolved after a quiet period, which doubles with each recent recurrence, so that a
flapping check is one alert rather than a message a minute. The caller keeps the tracked alerts; where a message reached
no channel, pass the previous ones again, and the message is due again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.model import Notice, Occasion, Severity
from rolling_upgrade.engine.serialization import from_plain, to_plain


@dataclass(frozen=True)
class Alert:
    """A check that fails on a host now. `level` overrides the usual severity.

    `given_up`: the watchdog gave up recovery and needs an operator; an alert for which this becomes true is sent again.
    """

    host: str
    check: str
    cause: str = ""
    next_command: str = ""
    level: Severity | None = None
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


#: The message that an alert starts with, by whether recovery was given up.
_FIRST = {False: Occasion.CHECK_FAILING, True: Occasion.RECOVERY_GIVEN_UP}

#: Tracked alerts by their key.
TrackedAlerts = Mapping[str, TrackedAlert]


@dataclass(frozen=True)
class AlertDeduplicator:
    """Decides which alerts of an application are sent; see the module's docstring for the rules."""

    application: str
    environment: str
    repeat_seconds: float = 21_600.0
    quiet_seconds: float = 120.0

    def update(
        self, tracked: TrackedAlerts, alerts: Sequence[Alert], now: float
    ) -> tuple[TrackedAlerts, tuple[Notice, ...]]:
        """Track the alerts that fire now; return what is tracked from now on, and the notices to send.

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
            return self._notice(_FIRST[alert.given_up], new, now, alert.cause)
        gave_up = alert.given_up and not known.alert.given_up
        due = gave_up or now - known.sent_at >= self.repeat_seconds
        known = replace(known, alert=without_cause, seen_at=now, sent_at=now if due else known.sent_at)
        updated[alert.key] = known
        return self._notice(_FIRST[True] if gave_up else Occasion.CHECK_AGAIN, known, now, alert.cause) if due else None

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
            level=tracked.alert.level,
        )


def _not_in_future(tracked: TrackedAlert, now: float) -> TrackedAlert:
    """Limit all times to now: the clock may have been set back."""
    since, sent_at, seen_at = (min(at, now) for at in (tracked.since, tracked.sent_at, tracked.seen_at))
    return replace(tracked, since=since, sent_at=sent_at, seen_at=seen_at)


def dump(tracked: TrackedAlerts) -> str:
    """The content of a file of tracked alerts."""
    return json.dumps([to_plain(alert) for alert in tracked.values()])


def load(text: str) -> TrackedAlerts:
    """Parse the output of `dump`; empty for malformed text, which costs at most a repeated message."""
    try:
        tracked = [_load_alert(row) for row in untrusted.json_value(text)]
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
    return {known.alert.key: known for known in tracked}


def _load_alert(row: dict[str, object]) -> TrackedAlert:
    times = {key: untrusted.moment(row[key]) for key in ("since", "told_at", "seen_at")}
    tracked: TrackedAlert = from_plain(TrackedAlert, {**row, **times})
    return replace(tracked, times=untrusted.integer(tracked.times))
