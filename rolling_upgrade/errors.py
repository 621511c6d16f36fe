"""The error tree and the exit codes. It owns every way a task can end badly; it prints nothing.

    RollingError                 1   failed, and what was done is undone
    ├── ConfigError              2   usage or configuration; nothing was contacted
    ├── PreflightError           3   a host is not fit for the run; nothing was touched
    │   └── HostUnreachable      3   no verified connection to a host
    ├── LockHeld                 4   another run holds a host's lock
    │   └── LockLost             4   this run's lock was taken over; it refuses to act
    ├── UndoFailed               5   the undo itself failed; a person is needed
    ├── PartlyDone               6   some hosts are upgraded, others are not; run again
    ├── StepFailed               1   a step on a host failed
    └── Interrupted            130   Ctrl-C or SIGTERM; what was done is undone

Every message says what happened (with host and service), where things stand, and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """What the process returns to the shell."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    LOCKED = 4
    UNDO_FAILED = 5
    PARTLY_DONE = 6
    INTERRUPTED = 130


class RollingError(Exception):
    """Base of every error that a task reports; `next_step` is what the operator does now."""

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        between = "\n" if "\n" in self.message else " "
        return f"{self.message.rstrip()}{between}Next: {self.next_step}" if self.next_step else self.message


@dataclass(frozen=True)
class Mistake:
    """One thing wrong in one configuration file: where, what was found, what is expected."""

    file: str
    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        place = f"{self.file}: {self.path}" if self.path else self.file
        return f"{place}: found {self.found}; expected {self.expected}"


class ConfigError(RollingError):
    """Every mistake found in the configuration or the command line, all at once."""

    exit_code = ExitCode.USAGE

    def __init__(self, message: str, mistakes: Sequence[Mistake] = (), *, next_step: str = "") -> None:
        super().__init__(message, next_step=next_step)
        self.mistakes = tuple(mistakes)

    def __str__(self) -> str:
        listed = "".join(f"\n  {mistake}" for mistake in self.mistakes)
        next_step = f"\nNext: {self.next_step}" if self.next_step else ""
        return f"{self.message}{listed}{next_step}"


class PreflightError(RollingError):
    """One or more hosts are not fit for the run; nothing was touched."""

    exit_code = ExitCode.REFUSED


class HostUnreachable(PreflightError):
    """No verified connection to a host: refused, timed out, key unknown or changed, login denied."""


class LockHeld(RollingError):
    """Another run holds the lock of a host."""

    exit_code = ExitCode.LOCKED


class LockLost(LockHeld):
    """This run's lock is no longer its own; it refuses to act on the host."""


class StepFailed(RollingError):
    """A step on a host failed; the caller undoes what was done."""


class ConnectionDropped(RollingError):
    """The connection died while a script ran: its outcome on the host is unknown until observed.

    A stage is attached to again; what ends a task with this error only looked or took locks, hence the exit code.
    """

    exit_code = ExitCode.REFUSED


class UndoFailed(RollingError):
    """The undo of a failed run failed as well: a person has to look at the host."""

    exit_code = ExitCode.UNDO_FAILED


class PartlyDone(RollingError):
    """Some hosts run the new release and others do not; the same command resumes."""

    exit_code = ExitCode.PARTLY_DONE


class Interrupted(RollingError):
    """The operator stopped the run; what was done is undone."""

    exit_code = ExitCode.INTERRUPTED
