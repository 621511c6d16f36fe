"""What people are told of a run, a check or a recovery, whatever the channel and the language. Shapes only.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fabfile.model.run import HostResult


class Severity(str, Enum):
    """How much a message matters, from least to most."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    def reaches(self, lowest: Severity) -> bool:
        """Whether this is at least as severe."""
        order = list(Severity)
        return order.index(self) >= order.index(lowest)


class Occasion(str, Enum):
    """What a message is sent for. Of a run: `partly` is also said when the outcome on a host is unknown."""

    DEPLOY_STARTED = "deploy started"
    DEPLOY_DONE = "deploy done"
    DEPLOY_UNDONE = "deploy undone"
    DEPLOY_PARTLY = "deploy partly"
    DEPLOY_FAILED = "deploy failed"
    ROLLBACK_STARTED = "rollback started"
    ROLLBACK_DONE = "rollback done"
    ROLLBACK_UNDONE = "rollback undone"
    ROLLBACK_PARTLY = "rollback partly"
    ROLLBACK_FAILED = "rollback failed"
    RESTORE_STARTED = "restore started"
    RESTORE_DONE = "restore done"
    RESTORE_UNDONE = "restore undone"
    RESTORE_PARTLY = "restore partly"
    RESTORE_FAILED = "restore failed"
    RECOVERY_DONE = "recovery done"
    RECOVERY_GIVEN_UP = "recovery given-up"
    CHECK_FAILING = "check failing"
    CHECK_AGAIN = "check again"
    CHECK_RESOLVED = "check resolved"
    TEST = "test"
    MESSAGE = "message"

    @property
    def subject(self) -> str:
        """What it is about: `deploy`, `rollback`, `restore`, `recovery`, `check`, `test` or `message`."""
        return self.value.partition(" ")[0]

    @property
    def turn(self) -> str:
        """What became of it: `started`, `done` …; '' for what has no turns."""
        return self.value.partition(" ")[2]

    @property
    def severity(self) -> Severity:
        """How much it matters, unless a notice says otherwise."""
        return _SEVERITIES.get(self.value) or _SEVERITIES.get(self.turn, Severity.INFO)

    @property
    def well(self) -> bool:
        """Whether it says that something is well now."""
        return self.turn in {"done", "resolved"}


#: By occasion or by turn; everything else is information.
_SEVERITIES = {
    "recovery done": Severity.WARNING,
    "undone": Severity.WARNING,
    "partly": Severity.WARNING,
    "failed": Severity.CRITICAL,
    "given-up": Severity.CRITICAL,
    "failing": Severity.CRITICAL,
    "again": Severity.CRITICAL,
    # Whoever was told of an alert is told of its end.
    "resolved": Severity.CRITICAL,
}


@dataclass(frozen=True)
class Passage:
    """One thing that goes from one state to another: a service's image, the data; `hosts` where not all do so."""

    what: str
    before: str
    after: str
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Notice:
    """One message, before it has words.

    `thread` joins the messages of one run or one alert: a release's id, an alert's id. `at` is Unix seconds. `target`
    is what a run brings (a tag, a backup), `check` what an alert is about, `results` where each host stands when not
    all ended alike, `text` what a person wrote. `level` stands in the place of the occasion's severity.
    """

    occasion: Occasion
    application: str
    environment: str
    thread: str
    at: float
    hosts: tuple[str, ...] = ()
    who: str = ""
    target: str = ""
    check: str = ""
    passages: tuple[Passage, ...] = ()
    results: tuple[tuple[str, HostResult], ...] = ()
    seconds: float = 0.0
    cause: str = ""
    next_command: str = ""
    text: str = ""
    level: Severity | None = None

    @property
    def severity(self) -> Severity:
        """How much it matters, which decides the channels that it goes to."""
        return self.level or self.occasion.severity

    @property
    def id(self) -> str:
        """The same for the same event, however often it is sent; another one for every other event."""
        again = f" {int(self.at)}" if self.occasion is Occasion.CHECK_AGAIN else ""
        return f"{self.thread} {self.occasion.value}{again}"
