"""The alerts of this host: which of them people are told of now. What a look means is in alerting.py."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fabfile.model import HealthReport
from fabfile.model.watch import Decision, Look, Memory
from fabfile.notify import holding
from fabfile.notify.holding import Alert, Holding
from fabfile.watchdog import alerting, keeping, outbox
from fabfile.watchdog.keeping import Settings


class Telling:
    """What was told so far, kept in a file, so that another start of the watchdog repeats nothing."""

    def __init__(self, home: Path, settings: Settings) -> None:
        self._home, self._settings = home, settings
        rules = settings.rules
        quiet = rules.failures * rules.interval_seconds
        self._holding = Holding(settings.app, settings.environment, settings.channels.repeat_seconds, quiet)
        self._file = keeping.directory(home) / "alerts.json"
        self._memory = holding.load(keeping.text(self._file))
        self._counts: dict[str, int] = {}
        self._blind = 0

    def looked(self, report: HealthReport, look: Look, decision: Decision, memory: Memory) -> None:
        """One more look; while a run changes the host, nothing is told of it."""
        self._blind = 0
        if look.held:
            return
        self._counts = alerting.counted(self._counts, report)
        settings = self._settings
        self._hold(
            alerting.alerts(
                settings.host, settings.environment, report, look, decision, memory, self._counts, settings.rules
            )
        )

    def blind(self, why: str) -> None:
        """The host could not be looked at: of what is known nothing is over, and that is an alert too."""
        self._blind += 1
        if self._blind < self._settings.rules.failures:
            return
        known = [held.alert for held in self._memory.values() if held.open]
        command = f"inv monitor.logs --env {self._settings.environment} --hosts {self._settings.host}"
        self._hold([*known, Alert(self._settings.host, "watchdog", why, command)])

    def _hold(self, alerts: Sequence[Alert]) -> None:
        memory, notices = self._holding.hold(self._memory, alerts, time.time())
        for notice in notices:
            outbox.put(self._home, notice, self._settings.channels)
        if memory != self._memory:
            self._memory = memory
            with suppress(OSError):
                keeping.keep(self._file, holding.dump(memory))
