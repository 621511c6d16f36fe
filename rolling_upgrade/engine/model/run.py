"""The events of a run, and its results.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Phase(str, Enum):
    """The kind of an event."""

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    NOTE = "note"
    PROGRESS = "progress"


@dataclass(frozen=True)
class Event:
    """An event of a run, at `at` Unix seconds.

    An empty `step` means the whole host, an empty `host` the whole run. `sent` and `total` are the bytes of a transfer.
    """

    at: float
    phase: Phase
    title: str
    host: str = ""
    step: str = ""
    seconds: float = 0.0
    detail: str = ""
    sent: int = 0
    total: int = 0


@dataclass(frozen=True)
class Stage:
    """One stage of a run in its host's journal, with times in Unix seconds of that host.

    `ended` and `status` are None for a stage that never ended. `log` contains the last lines.
    """

    step: str
    began: float
    ended: float | None = None
    status: int | None = None
    log: tuple[str, ...] = ()


class HostResult(str, Enum):
    """The state of a host at the end of a run."""

    UPGRADED = "upgraded"
    ROLLED_BACK = "rolled back"
    RESTORED = "restored"
    RECOVERED = "recovered"
    PREPARED = "prepared"
    TORN_DOWN = "torn down"
    SYNCED = "synced"
    UNCHANGED = "unchanged"
    UNDONE = "undone"
    UNDO_FAILED = "undo-failed"
    NOT_STARTED = "not-started"
    UNKNOWN = "unknown"

    @classmethod
    def changed(cls) -> tuple[HostResult, ...]:
        """Return the results of a host whose complete plan was executed."""
        return cls.UPGRADED, cls.ROLLED_BACK, cls.RESTORED, cls.RECOVERED


@dataclass(frozen=True)
class HostSummary:
    """One host's line in the final summary."""

    host: str
    result: HostResult
    seconds: float
    images: tuple[tuple[str, str], ...] = ()
    cause: str = ""


@dataclass(frozen=True)
class Summary:
    """The result of a run, in output and JSON."""

    action: str
    environment: str
    release: str
    exit_code: int
    seconds: float
    hosts: tuple[HostSummary, ...]
    message: str = ""
    undo_command: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExpiredItem:
    """An item past its retention; `verdict` is `would go`, `gone` or `in use`.

    Images share layers, so the sum of their `bytes` is an upper bound of the space that deleting them frees.
    """

    kind: str
    name: str
    bytes: int
    verdict: str


class Level(str, Enum):
    """The severity of a diagnosis: no action, worth attention, or a reason to refuse a deploy."""

    OK = "ok"
    WARNING = "warning"
    REFUSED = "refused"


@dataclass(frozen=True)
class Diagnosis:
    """One finding about a host or this machine, and the remedy."""

    host: str
    level: Level
    what: str
    remedy: str = ""
