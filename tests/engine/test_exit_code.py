"""Combining the results of all hosts into one exit code."""

from __future__ import annotations

import pytest

from rolling_upgrade.engine.model import HostResult, exit_code
from rolling_upgrade.errors import ExitCode, HostUnreachable, LockHeld, LockLost, RollingError, StepFailed

UPGRADED, UNCHANGED, UNDONE = HostResult.UPGRADED, HostResult.UNCHANGED, HostResult.UNDONE
NOT_STARTED, UNKNOWN, UNDO_FAILED = HostResult.NOT_STARTED, HostResult.UNKNOWN, HostResult.UNDO_FAILED
AWAY, HELD, LOST, FAILED = HostUnreachable("away"), LockHeld("held"), LockLost("lost"), StepFailed("failed")


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([UPGRADED, UNDO_FAILED], ExitCode.UNDO_FAILED),
        ([UNDO_FAILED, LOST, UNKNOWN], ExitCode.UNDO_FAILED),
        ([LOST], ExitCode.LOCKED),
        ([UPGRADED, LOST, UNKNOWN], ExitCode.LOCKED),
        ([], ExitCode.DONE),
        ([UPGRADED, UNCHANGED], ExitCode.DONE),
        ([HostResult.PREPARED, HostResult.TORN_DOWN, HostResult.SYNCED], ExitCode.DONE),
        ([None, None], ExitCode.DONE),
        ([UNKNOWN], ExitCode.PARTLY_DONE),
        ([UPGRADED, UNDONE], ExitCode.PARTLY_DONE),
        ([UPGRADED, NOT_STARTED], ExitCode.PARTLY_DONE),
        ([None, AWAY], ExitCode.PARTLY_DONE),
        ([None, HELD], ExitCode.PARTLY_DONE),
        ([UNDONE], ExitCode.FAILED),
        ([UNCHANGED, UNDONE, NOT_STARTED], ExitCode.FAILED),
        ([AWAY, FAILED], ExitCode.REFUSED),
        ([HELD], ExitCode.LOCKED),
        ([FAILED, AWAY], ExitCode.FAILED),
    ],
)
def test_exit_code_is_decided_by_the_first_matching_rule(
    results: list[HostResult | RollingError | None], code: ExitCode
) -> None:
    assert exit_code(results) is code


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([UNDONE, NOT_STARTED], ExitCode.INTERRUPTED),
        ([UPGRADED], ExitCode.DONE),
        ([UPGRADED, NOT_STARTED], ExitCode.PARTLY_DONE),
        ([UNDO_FAILED], ExitCode.UNDO_FAILED),
    ],
)
def test_exit_code_of_an_interrupted_run(results: list[HostResult | RollingError | None], code: ExitCode) -> None:
    assert exit_code(results, interrupted=True) is code
