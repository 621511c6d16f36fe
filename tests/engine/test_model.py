"""The data model: run ids, the exit code of many results, and derived values."""

from __future__ import annotations

import re

import pytest

from rolling_upgrade.engine.model import HostResult, exit_code, new_run_id, short_digest
from rolling_upgrade.errors import ExitCode, HostUnreachable, LockHeld, LockLost, RollingError, StepFailed


def test_short_digest_has_twelve_digits() -> None:
    assert short_digest("sha256:" + "ab12" * 16) == "ab12ab12ab12"


def test_new_run_id_begins_with_the_time_and_is_unique() -> None:
    ids = {new_run_id(1_795_403_565) for _ in range(20)}

    assert len(ids) == 20
    assert all(re.fullmatch(r"20261123T031245Z-[0-9a-f]{6}", id) for id in ids)


def test_new_run_id_sorts_by_time() -> None:
    assert new_run_id(1_795_403_565) < new_run_id(1_795_403_566) < new_run_id()


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
