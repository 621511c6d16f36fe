"""What happens during a run and how it ends: events and summaries. Shapes only.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Phase(str, Enum):
    """What an event says of a step or of a host."""

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    NOTE = "note"
    PROGRESS = "progress"


@dataclass(frozen=True)
class Event:
    """Something that happened during a run, `at` Unix seconds. An empty `step` speaks of the whole host, an empty
    `host` of the whole run. `sent` and `total` are the bytes of a transfer's progress."""

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
    """One stage of a run as its host's journal has it, in Unix seconds of that host; `ended` and `status` are None for
    one that never ended. `log` are its last lines."""

    step: str
    began: float
    ended: float | None = None
    status: int | None = None
    log: tuple[str, ...] = ()


class HostResult(str, Enum):
    """Where a host stands when a run has ended."""

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
        """The results of a host on which all that was planned is done."""
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
    """How a run ended: the last thing that a person, a pipe or a CI job reads."""

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
class Pruned:
    """One thing past its retention: `verdict` is `would go`, `gone` or `in use`; images share layers, so that their
    bytes are the most that can be freed."""

    kind: str
    name: str
    bytes: int
    verdict: str


class Level(str, Enum):
    """How much a diagnosis matters: nothing to do, worth a person's while, or a deploy would be refused."""

    OK = "ok"
    WARNING = "warning"
    REFUSED = "refused"


@dataclass(frozen=True)
class Diagnosis:
    """One thing that was looked at, on a host or on this machine, and what to do about it."""

    host: str
    level: Level
    what: str
    remedy: str = ""
