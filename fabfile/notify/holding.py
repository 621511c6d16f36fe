"""One message per event: which alerts are told now, which are held back, which are over. Pure; the caller keeps time.

An alert is told when it begins, again after `repeat_seconds`, and when it is over. It is over once it has stayed away
for a while, twice as long each time that it came back lately: what comes and goes is one alert, not a message a minute.
Where a message reached no channel, keep the memory of before: the next call says it again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from fabfile.model.notice import Notice, Occasion, Severity


@dataclass(frozen=True)
class Alert:
    """One check that fails on one host now; `level` stands in the place of the usual severity.

    `given_up`: nobody but a person mends it; an alert that becomes so is told again.
    """

    host: str
    check: str
    cause: str = ""
    next_command: str = ""
    level: Severity | None = None
    given_up: bool = False

    @property
    def key(self) -> str:
        """The same for the same trouble."""
        return f"{self.host} {self.check}"


@dataclass(frozen=True)
class Held:
    """What is remembered of an alert: since when it goes on, when it was last told and last seen, in Unix seconds.

    `times` counts how often it came back within `repeat_seconds`; an alert that is not `open` is over.
    """

    alert: Alert
    thread: str
    since: float
    told_at: float
    seen_at: float
    times: int = 0
    open: bool = True


#: What the first message of an alert is, by whether recovery was given up.
_FIRST = {False: Occasion.CHECK_FAILING, True: Occasion.RECOVERY_GIVEN_UP}

#: Alerts by their key.
Memory = Mapping[str, Held]


@dataclass(frozen=True)
class Holding:
    """Whose alerts these are, and for how long they are held back."""

    application: str
    environment: str
    repeat_seconds: float = 21_600.0
    quiet_seconds: float = 120.0

    def hold(self, memory: Memory, alerts: Sequence[Alert], now: float) -> tuple[Memory, tuple[Notice, ...]]:
        """The memory after this look, and what is to be told; `now` is Unix seconds and may jump."""
        kept = {key: _not_after(held, now) for key, held in memory.items()}
        failing = {alert.key: alert for alert in alerts}
        notices = [self._fails(kept, alert, now) for alert in failing.values()]
        notices += [self._is_away(kept, key, now) for key in list(kept) if key not in failing]
        return kept, tuple(notice for notice in notices if notice is not None)

    def _fails(self, kept: dict[str, Held], alert: Alert, now: float) -> Notice | None:
        held = kept.get(alert.key)
        quiet = replace(alert, cause="")
        if held is None or not held.open:
            times = held.times + 1 if held else 0
            kept[alert.key] = held = Held(quiet, self._thread(alert, now), now, now, now, times)
            return self._notice(_FIRST[alert.given_up], held, now, alert.cause)
        worse = alert.given_up and not held.alert.given_up
        again = worse or now - held.told_at >= self.repeat_seconds
        kept[alert.key] = held = replace(held, alert=quiet, seen_at=now, told_at=now if again else held.told_at)
        return self._notice(_FIRST[True] if worse else Occasion.CHECK_AGAIN, held, now, alert.cause) if again else None

    def _is_away(self, kept: dict[str, Held], key: str, now: float) -> Notice | None:
        held = kept[key]
        away = now - held.seen_at
        if not held.open:
            if away >= self.repeat_seconds:
                del kept[key]
            return None
        if away < min(self.quiet_seconds * 2 ** min(held.times, 16), self.repeat_seconds):
            return None
        kept[key] = replace(held, open=False)
        return self._notice(Occasion.CHECK_RESOLVED, held, now, "")

    def _thread(self, alert: Alert, now: float) -> str:
        return f"{self.application} {self.environment} {alert.key} {int(now)}"

    def _notice(self, occasion: Occasion, held: Held, now: float, cause: str) -> Notice:
        until = held.seen_at if occasion is Occasion.CHECK_RESOLVED else now
        return Notice(
            occasion,
            self.application,
            self.environment,
            held.thread,
            now,
            hosts=(held.alert.host,),
            check=held.alert.check,
            seconds=until - held.since,
            cause=cause,
            next_command="" if occasion is Occasion.CHECK_RESOLVED else held.alert.next_command,
            level=held.alert.level,
        )


def _not_after(held: Held, now: float) -> Held:
    """The same without moments that have not come yet: the clock was set back."""
    return replace(held, since=min(held.since, now), told_at=min(held.told_at, now), seen_at=min(held.seen_at, now))


def dump(memory: Memory) -> str:
    """The memory as a file keeps it; causes are not in it."""
    return json.dumps([asdict(held) for held in memory.values()])


def load(text: str) -> Memory:
    """What `dump` wrote; nothing for anything else, so that a damaged file costs a repeated message at the most."""
    try:
        held = [_held(row) for row in json.loads(text)]
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
    return {one.alert.key: one for one in held}


def _held(row: dict[str, object]) -> Held:
    alert = dict(row["alert"])  # type: ignore[call-overload]
    level = Severity(alert["level"]) if alert["level"] else None
    times = {key: float(str(row[key])) for key in ("since", "told_at", "seen_at")}
    return Held(
        Alert(**{**alert, "level": level}),
        str(row["thread"]),
        times=int(str(row["times"])),
        open=bool(row["open"]),
        **times,
    )
