"""How well a host is: one look, or one after the other until told to stop, come what may. It prints nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

from fabfile.commands import health, verdict
from fabfile.errors import HostUnreachable, RollingError
from fabfile.model import Application, HealthReport
from fabfile.remote.host import Cancelled, Host

#: How long one look may take: a database that is read through, once a day, is the longest part.
LOOK_SECONDS = 180.0
#: The longest pause before a host that could not be reached is tried again.
LONGEST_PAUSE_SECONDS = 30.0


def look(host: Host, app: Application, *, cancelled: Event | None = None) -> HealthReport:
    """Every check of one host in one round trip. Raises HostUnreachable, also for an answer cut short."""
    answer = host.run(health.check(app), timeout_seconds=LOOK_SECONDS, cancelled=cancelled)
    try:
        return verdict.parse(app, host.name, answer.output, time.time())
    except ValueError as error:
        # One host that makes no sense keeps nothing from being said of the others.
        said = f"{host.name}: {error}: {answer.errors.strip() or answer.last_words}"
        raise HostUnreachable(said, next_step=f"log in to {host.name} and look") from error


@dataclass(frozen=True)
class Watch:
    """One host that is looked at again and again, `interval_seconds` after each answer, until `ended` is set.

    `tell` gets its name and what each look found, or why there was nothing to find.
    """

    host: Host
    application: Application
    interval_seconds: float
    ended: Event
    tell: Callable[[str, HealthReport | RollingError], None]

    def run(self) -> None:
        """Look until the end; a lost host is tried again, after longer and longer pauses up to half a minute."""
        failures = 0
        while not self.ended.is_set():
            try:
                found = self._look()
            except Cancelled:
                return
            self.tell(self.host.name, found)
            failures = failures + 1 if isinstance(found, RollingError) else 0
            self.ended.wait(pause_seconds(failures, self.interval_seconds))

    def _look(self) -> HealthReport | RollingError:
        try:
            return look(self.host, self.application, cancelled=self.ended)
        except Cancelled:
            raise
        except RollingError as error:
            return error
        except Exception as error:  # noqa: BLE001 - the border between one host and the others
            return RollingError(f"{self.host.name}: an error that this program did not foresee: {error!r}")


def pause_seconds(failures: int, interval_seconds: float) -> float:
    """How long to wait after that many looks in a row that failed: 1, 2, 4 … seconds; the interval after none."""
    if not failures:
        return interval_seconds
    return min(2.0 ** min(failures - 1, 10), LONGEST_PAUSE_SECONDS)
