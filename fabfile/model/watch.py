"""What the watchdog knows and decides: what one look found, what it remembers, what it does. Shapes only.

Standard library only (Python 3.10+). Times are seconds on a clock that never jumps.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class WatchRules:
    """When the watchdog acts, and when it stops acting.

    `failures` consecutive bad looks call for a recovery; as many good ones end the trouble. At most `limit` recoveries
    within `window_seconds`. A release younger than `fresh_seconds` is rolled back where a restart did not help.
    `enabled` false: it looks and alerts, and touches nothing.
    """

    enabled: bool = True
    interval_seconds: float = 30.0
    failures: int = 3
    limit: int = 3
    window_seconds: float = 600.0
    fresh_seconds: float = 600.0


class Ailment(str, Enum):
    """What is wrong with a service: its container does not run, does not answer, answers that it is ill, crashes again
    and again, or no visitor gets through to it."""

    STOPPED = "stopped"
    SILENT = "silent"
    ILL = "ill"
    CRASHING = "crashing"
    PATH = "path"


@dataclass(frozen=True)
class Trouble:
    """One service that is unwell, and the check that says so.

    `misses` is how often it was found so since the look before, none for a crash that Podman mended already; `crashes`
    how often it crashed.
    """

    service: str
    ailment: Ailment
    reason: str
    misses: int = 1
    crashes: int = 0


@dataclass(frozen=True)
class Look:
    """What one look at the host means for recovery.

    `starved` says which resource is short, `hopeless` why no recovery of ours could help, `held` who holds the lock;
    each is '' otherwise. `release` names what serves, `fresh` says whether it is young, `earlier` whether there is a
    good one before it.
    """

    services: tuple[str, ...]
    troubles: tuple[Trouble, ...] = ()
    starved: str = ""
    hopeless: str = ""
    held: str = ""
    release: str = ""
    fresh: bool = False
    earlier: bool = False


@dataclass(frozen=True)
class Pulse:
    """The run of looks at one service: consecutive bad ones and good ones, crashes and recoveries in this trouble.

    `since` is when the trouble began, None without one.
    """

    service: str
    bad: int = 0
    crashes: int = 0
    good: int = 0
    tried: int = 0
    since: float | None = None


@dataclass(frozen=True)
class Memory:
    """What the watchdog carries from look to look. `recoveries` are the times of the latest ones."""

    pulses: tuple[Pulse, ...] = ()
    recoveries: tuple[float, ...] = ()
    release: str = ""
    given_up: bool = False
    pruned_at: float | None = None

    def pulse(self, service: str) -> Pulse:
        """The run of looks at that service."""
        return next((pulse for pulse in self.pulses if pulse.service == service), Pulse(service))


class Act(str, Enum):
    """What the watchdog does about what it saw."""

    NOTHING = "nothing"
    WAIT = "wait"
    RESTART = "restart"
    REDEPLOY = "redeploy"
    ROLL_BACK = "roll back"
    PRUNE = "prune"
    GIVE_UP = "give up"


#: The acts that change what serves; each has a line in the history and counts against the limit.
RECOVERIES = frozenset({Act.RESTART, Act.REDEPLOY, Act.ROLL_BACK})


@dataclass(frozen=True)
class Decision:
    """One act, the service that it is for ('' for the whole host), and why."""

    act: Act
    service: str = ""
    reason: str = ""
