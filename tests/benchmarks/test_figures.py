"""The figures of the benchmark: parts that add up, medians, and a line per kind."""

from __future__ import annotations

import pytest

from benchmarks.figures import MeasuredDeploy, Parts, read_parts, table
from benchmarks.ssh_log import SshCounts


def event(at: float, phase: str, step: str) -> dict[str, object]:
    """Return the relevant fields of an event of `inv deploy --json`."""
    return {"at": at, "phase": phase, "step": step}


EVENTS = [
    event(101.0, "started", "lock"),
    event(101.4, "done", "lock"),
    event(101.5, "started", "backup"),
    event(107.5, "done", "record"),
    event(107.6, "note", ""),
]


def test_read_parts_complete_run_gives_each_part_its_seconds() -> None:
    parts = read_parts(EVENTS, 100.0, 108.0, by_hand=5.0)
    assert (parts.to_plan, parts.lock) == (1.0, 0.5)
    assert (parts.in_steps, parts.to_exit) == (1.0, 0.5)


def test_read_parts_complete_run_parts_add_up_to_the_wall_time() -> None:
    measured = MeasuredDeploy(1, 0, 5.0, read_parts(EVENTS, 100.0, 108.0, by_hand=5.0), SshCounts(1, 12))
    assert measured.parts.share == pytest.approx(3.0)
    assert measured.wall == pytest.approx(8.0)


def test_table_repeated_measurements_become_one_line_of_medians_and_worst_counts() -> None:
    measured = [
        MeasuredDeploy(2, 50, 10.0, Parts(share, 0, 0, 0), SshCounts(1, executions))
        for share, executions in ((1.0, 11), (9.0, 12), (2.0, 11))
    ]
    line = table(measured).splitlines()[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:7] == ["2", "50", "12.0", "10.0", "2.00", "1.00 to 9.00", "17%"]
    assert cells[-2:] == ["1", "12"]


def test_table_sizes_and_distances_are_sorted_by_number() -> None:
    measured = [
        MeasuredDeploy(hosts, rtt, 1, Parts(1, 0, 0, 0), SshCounts(1, 1)) for hosts in (10, 2) for rtt in (150, 50)
    ]
    found = [tuple(line.split("|")[1:3]) for line in table(measured).splitlines()[2:]]
    assert found == [(" 2 ", " 50 "), (" 2 ", " 150 "), (" 10 ", " 50 "), (" 10 ", " 150 ")]
