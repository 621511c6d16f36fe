"""The ids of runs."""

from __future__ import annotations

import re

from rolling_upgrade.engine.model import new_run_id


def test_new_run_id_begins_with_the_time_and_is_unique() -> None:
    ids = {new_run_id(1_795_403_565) for _ in range(20)}

    assert len(ids) == 20
    assert all(re.fullmatch(r"20261123T031245Z-[0-9a-f]{6}", id) for id in ids)


def test_new_run_id_sorts_by_time() -> None:
    assert new_run_id(1_795_403_565) < new_run_id(1_795_403_566) < new_run_id()
