"""The exit code of a command that worked on many hosts."""

from __future__ import annotations

from collections.abc import Iterable

from rolling_upgrade.engine.model import HostResult
from rolling_upgrade.errors import ExitCode, LockLost, RollingError

#: The results of a host that is in the desired state.
_GOOD = frozenset(HostResult) - {
    HostResult.UNDONE,
    HostResult.UNDO_FAILED,
    HostResult.NOT_STARTED,
    HostResult.UNKNOWN,
}


def exit_code(results: Iterable[HostResult | RollingError | None], *, interrupted: bool = False) -> ExitCode:
    """Combine the results of all hosts into one exit code. The first rule that applies decides:

    1. an undo failed: UNDO_FAILED
    2. a host's lock was lost to another run: LOCKED
    3. every host is in the desired state: DONE
    4. a host's state is unknown, or some hosts were changed and others were not: PARTLY_DONE
    5. the operator interrupted the run: INTERRUPTED
    6. the exit code of the first error, FAILED without one

    Args:
        results: for each host its result, the error that kept the command from doing anything there, or None where
            the command did its work and has no more to say.
        interrupted: whether the operator interrupted the run.
    """
    hosts = list(results)
    if HostResult.UNDO_FAILED in hosts:
        return ExitCode.UNDO_FAILED
    if any(isinstance(result, LockLost) for result in hosts):
        return ExitCode.LOCKED
    if all(result is None or result in _GOOD for result in hosts):
        return ExitCode.DONE
    changed = (None, *_GOOD - {HostResult.UNCHANGED})
    if HostResult.UNKNOWN in hosts or any(result in changed for result in hosts):
        return ExitCode.PARTLY_DONE
    if interrupted:
        return ExitCode.INTERRUPTED
    return next((result.exit_code for result in hosts if isinstance(result, RollingError)), ExitCode.FAILED)
