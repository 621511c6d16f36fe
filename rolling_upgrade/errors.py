"""The error tree and the exit codes.

    RollingError                 1   failed; completed steps are undone
    ├── ConfigError              2   usage or configuration; nothing was contacted
    ├── PreflightError           3   a host fails a preflight check; nothing was changed
    │   └── HostUnreachable      3   no verified SSH connection to a host
    ├── LockHeld                 4   another run holds a host's lock
    │   ├── StepRunning          4   this run has the lock, but a step of an earlier run has not ended
    │   └── LockLost             4   this run lost its lock and stopped
    ├── UndoFailed               5   the undo failed; an operator has to act
    ├── StepFailed               1   a step on a host failed
    └── Interrupted            130   Ctrl-C or SIGTERM; completed steps are undone

Every message says what happened (with host and service), the state now, and the next command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TypeVar


def _program(started: Path) -> str:
    """Return the program name for hints: `inv` or `fab` if the operator runs it, otherwise `rolling-upgrade`."""
    name = started.parent.name if started.name == "__main__.py" else started.name
    return {"inv": "inv", "invoke": "inv", "fab": "fab", "fabric": "fab"}.get(name, "rolling-upgrade")


#: The program to name in hints: `inv` or `fab` if the operator runs it; otherwise, also on hosts, `rolling-upgrade`.
PROGRAM = _program(Path(sys.argv[0] if sys.argv else ""))


class ExitCode(IntEnum):
    """The exit code of the process."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    LOCKED = 4
    UNDO_FAILED = 5
    PARTLY_DONE = 6
    INTERRUPTED = 130


class RollingError(Exception):
    """Base class of all errors that a task reports. `next_step` tells the operator what to do."""

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        between = "\n" if "\n" in self.message else " "
        return f"{self.message.rstrip()}{between}Next: {self.next_step}" if self.next_step else self.message


@dataclass(frozen=True)
class ConfigIssue:
    """One error in the configuration or the command line. An empty `found` means that a required value is missing.

    `path` is the place in the file for programs, such as `services[0].port`; `where` the same for people, such as
    `service web: port`. `line` is 0 if the place has no line, and for the command line.
    """

    file: str
    path: str
    found: str
    expected: str
    line: int = field(default=0, compare=False)
    where: str = field(default="", compare=False)

    @property
    def place(self) -> str:
        """The place in the file for people, such as `line 12: service web: port`."""
        return ": ".join(filter(None, (f"line {self.line}" if self.line else "", self.where or self.path)))

    def __str__(self) -> str:
        file = f"{self.file}:{self.line}" if self.line else self.file
        place = ": ".join(filter(None, (file, self.where or self.path)))
        if not self.found:
            return f"{place} is required: {self.expected}" if self.expected else f"{place} is required"
        return f"{place}: found {self.found}; expected {self.expected}"


class ConfigError(RollingError):
    """All errors of the configuration or the command line at once."""

    exit_code = ExitCode.USAGE

    def __init__(self, message: str, issues: Sequence[ConfigIssue] = (), *, next_step: str = "") -> None:
        super().__init__(message, next_step=next_step)
        self.issues = tuple(issues)

    def __str__(self) -> str:
        listed = "".join(f"\n  {issue}" for issue in self.issues)
        next_step = f"\nNext: {self.next_step}" if self.next_step else ""
        return f"{self.message}{listed}{next_step}"


def usage_error(*issues: tuple[str, str, str], nothing: str = "contacted") -> ConfigError:
    """Build the error for a command line.

    Args:
        issues: The option, what was found and what is expected, once for each issue.
        nothing: The action that did not begin, as a participle: contacted, built, run, touched, written.
    """
    listed = [ConfigIssue("command line", *issue) for issue in issues]
    return ConfigError(
        f"The command line has an error; nothing was {nothing}.",
        listed,
        next_step=f"correct it; {PROGRAM} --help TASK lists the options of a task",
    )


class PreflightError(RollingError):
    """One or more hosts failed the preflight checks; nothing was changed."""

    exit_code = ExitCode.REFUSED


class HostUnreachable(PreflightError):
    """No verified connection to a host: refused, timed out, key unknown or changed, login denied."""


class LockHeld(RollingError):
    """Another run holds the lock of a host."""

    exit_code = ExitCode.LOCKED


class StepRunning(LockHeld):
    """This run holds the lock of a host, but a step of an earlier run is still running there."""


class LockLost(LockHeld):
    """This run no longer holds the lock of a host and does not act on it."""


class StepFailed(RollingError):
    """A step on a host failed; the caller undoes the completed steps."""


class ConnectionDropped(RollingError):
    """The connection dropped while a script ran: its outcome is unknown until the host is observed.

    A workstation that follows a run connects again. A task fails with this error only when it was reading state or
    acquiring locks, hence the exit code.
    """

    exit_code = ExitCode.REFUSED


class UndoFailed(RollingError):
    """The undo of a failed run failed too: an operator has to look at the host."""

    exit_code = ExitCode.UNDO_FAILED


class Interrupted(RollingError):
    """The operator stopped the run; completed steps are undone."""

    exit_code = ExitCode.INTERRUPTED


E = TypeVar("E", bound=RollingError)


def unexpected(host: str, error: Exception, kind: type[E], *, next_step: str) -> E:
    """Build the error of one host for an unexpected exception, a bug; the other hosts continue."""
    return kind(f"{host}: unexpected error: {error!r}", next_step=f"{next_step}; please report the error")
