"""Check the health of one host, once or repeatedly."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

from rolling_upgrade.engine.host import Cancelled, Host
from rolling_upgrade.engine.model import Application, HealthReport
from rolling_upgrade.engine.untrusted import Malformed
from rolling_upgrade.errors import HostUnreachable, RollingError, unexpected
from rolling_upgrade.features.health import shell as health
from rolling_upgrade.features.health import verdict

#: The timeout of one check: the daily integrity check of the database takes longest.
CHECK_SECONDS = 180.0
#: The longest pause before an unreachable host is tried again.
MAX_PAUSE_SECONDS = 30.0


def check_host(host: Host, app: Application, *, cancelled: Event | None = None) -> HealthReport:
    """Run every check of one host in one round trip. Raises HostUnreachable, also for a malformed answer."""
    answer = host.run(health.check(app), timeout_seconds=CHECK_SECONDS, cancelled=cancelled)
    try:
        return verdict.parse(app, host.name, answer.output, time.time())
    except Malformed as error:
        # A malformed answer of one host does not hide the others.
        message = f"{host.name}: {error}: {answer.output_tail}"
        raise HostUnreachable(message, next_step=f"log in to {host.name} and see what a login shell prints") from error


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
        """Check until `ended` is set; the pauses before an unreachable host is tried again grow to MAX_PAUSE_SECONDS."""
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
