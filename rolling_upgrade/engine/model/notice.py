"""Notifications about a run, a check or a recovery, independent of channel and language.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import urlsplit

from rolling_upgrade.engine.model.run import HostResult


class Severity(str, Enum):
    """The severity of a message, in ascending order."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    def reaches(self, lowest: Severity) -> bool:
        """Whether this severity is at least as high as the other."""
        order = list(Severity)
        return order.index(self) >= order.index(lowest)


class Occasion(str, Enum):
    """The event that a message reports. A run that ends `partly` may also have hosts in an unknown state."""

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
        """The subject: `deploy`, `rollback`, `restore`, `recovery`, `check`, `test` or `message`."""
        return self.value.partition(" ")[0]

    @property
    def phase(self) -> str:
        """The phase of the subject: `started`, `done` …; '' for a test and an operator's message."""
        return self.value.partition(" ")[2]

    @property
    def severity(self) -> Severity:
        """The severity, unless a notice overrides it."""
        return _SEVERITIES.get(self.value) or _SEVERITIES.get(self.phase, Severity.INFO)

    @property
    def is_success(self) -> bool:
        """Whether the notice reports a finished run or a resolved alert."""
        return self.phase in {"done", "resolved"}


#: The severity by occasion or by phase; all others are INFO.
_SEVERITIES = {
    "recovery done": Severity.WARNING,
    "undone": Severity.WARNING,
    "partly": Severity.WARNING,
    "failed": Severity.CRITICAL,
    "given-up": Severity.CRITICAL,
    "failing": Severity.CRITICAL,
    "again": Severity.CRITICAL,
    # The end of an alert reaches everyone who received the alert.
    "resolved": Severity.CRITICAL,
}


@dataclass(frozen=True)
class VersionChange:
    """A change from one version to another, of a service or of the data; `hosts` if not all hosts change."""

    what: str
    before: str
    after: str
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Notice:
    """One message before it is rendered in a language.

    Attributes:
        thread: joins the messages of one run or one alert.
        at: Unix seconds.
        target: the tag that a run deploys, or the backup that it restores.
        check: the subject of an alert.
        results: the state of each host, if they differ.
        text: the text that an operator wrote.
        level: overrides the severity of the occasion.
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
    changes: tuple[VersionChange, ...] = field(default=(), metadata={"key": "passages"})
    results: tuple[tuple[str, HostResult], ...] = ()
    seconds: float = 0.0
    cause: str = ""
    next_command: str = ""
    text: str = ""
    level: Severity | None = None

    @property
    def severity(self) -> Severity:
        """The severity, which selects the channels that receive the message."""
        return self.level or self.occasion.severity

    @property
    def id(self) -> str:
        """Identifies the event: equal for each attempt to send it, different for every other event."""
        again = f" {int(self.at)}" if self.occasion is Occasion.CHECK_AGAIN else ""
        return f"{self.thread} {self.occasion.value}{again}"


class Security(str, Enum):
    """The protection of a connection to a mail server: STARTTLS, TLS from the first byte, or none."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True)
class Hook:
    """An address that accepts messages over HTTP, and is a secret; off with `lowest` None."""

    url: str = field(repr=False)
    lowest: Severity | None = Severity.INFO

    @property
    def secrets(self) -> tuple[str, ...]:
        """The texts to mask: the address, and each part of it that a library could quote alone."""
        parts = urlsplit(self.url)
        pieces = (
            parts.netloc.rpartition("@")[0],
            parts.password or "",
            *parts.path.split("/"),
            *parts.query.split("&"),
        )
        beyond = self.url.partition(parts.netloc)[2]
        return (self.url, *(piece for piece in (beyond, *pieces) if _is_secret(piece)))


def _is_secret(piece: str) -> bool:
    """Return whether a part of a URL is a secret, rather than an ordinary word such as `services`."""
    return len(piece) >= 16 or (len(piece) >= 8 and not re.fullmatch(r"[a-z_-]+", piece))


@dataclass(frozen=True)
class Mail:
    """A mail server, its login if it needs one, sender and recipients; off with `lowest` None."""

    host: str
    sender: str
    recipients: tuple[str, ...]
    port: int = 587
    user: str = ""
    password: str = field(default="", repr=False)
    security: Security = Security.STARTTLS
    lowest: Severity | None = Severity.INFO

    @property
    def secrets(self) -> tuple[str, ...]:
        """The texts to mask: the password, and its form in a login."""
        return (f"\0{self.user}\0{self.password}", self.password) if self.password else ()


@dataclass(frozen=True)
class Channels:
    """All configured channels, the language of the messages, and how long repeated alerts are suppressed."""

    slack: Hook | None = None
    mail: Mail | None = None
    webhook: Hook | None = None
    language: str = "en"
    repeat_seconds: float = 21_600.0

    @property
    def configured(self) -> tuple[tuple[str, Hook | Mail], ...]:
        """Each channel that has an address, by its name, even if it is off."""
        named = (("slack", self.slack), ("mail", self.mail), ("webhook", self.webhook))
        return tuple((name, channel) for name, channel in named if channel is not None)

    def accepting(self, severity: Severity) -> tuple[str, ...]:
        """The names of the channels that a message of this severity goes to."""
        return tuple(
            name for name, channel in self.configured if channel.lowest is not None and severity.reaches(channel.lowest)
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets of all channels, which must be masked."""
        return tuple(secret for _, channel in self.configured for secret in channel.secrets)
