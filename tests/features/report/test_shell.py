"""Reading a run's journal: complete, missing, bounded and truncated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import StepRecord
from rolling_upgrade.features.report import shell
from tests.support.shell import HOSTILE, sh

RUN = "20261124T080000Z-abcdef"


def write_step(home: Path, step: str, began: float, ended: float | None = None, status: int = 0, log: str = "") -> None:
    directory = home / "journal" / RUN
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{step}.log").write_text(log)
    files = [("session", "41", began)] + ([("status", str(status), ended)] if ended is not None else [])
    for name, text, at in files:
        (directory / f"{step}.{name}").write_text(f"{text}\n")
        os.utime(directory / f"{step}.{name}", (at, at))


def read(home: Path) -> tuple[StepRecord, ...]:
    return shell.parse(sh(shell.read(str(home), RUN)).stdout)


def test_read_sorts_steps_by_start(tmp_path: Path) -> None:
    write_step(tmp_path, "pull", 102.5, 103.75, 0, "pulled\n")
    write_step(tmp_path, "backup", 100.25, 101.5)
    write_step(tmp_path, "backend.start", 104.0, 110.0, 1, "one\n two\n\nthree")

    found = read(tmp_path)

    assert [(step.id, step.began, step.ended, step.status) for step in found] == [
        ("backup", 100.25, 101.5, 0),
        ("pull", 102.5, 103.75, 0),
        ("backend.start", 104.0, 110.0, 1),
    ]
    assert found[2].log == ("one", " two", "", "three")


def test_read_unfinished_step_has_no_end(tmp_path: Path) -> None:
    write_step(tmp_path, "pull", 100.0)

    (found,) = read(tmp_path)

    assert (found.ended, found.status) == (None, None)


def test_read_log_is_bounded(tmp_path: Path) -> None:
    write_step(tmp_path, "pull", 100.0, 101.0, 0, "\n".join(f"{number} {'x' * 5000}" for number in range(500)))

    (found,) = read(tmp_path)

    assert len(found.log) == shell.MOST_LINES
    assert max(map(len, found.log)) == shell.LONGEST_LINE


def test_read_run_without_a_journal_is_empty(tmp_path: Path) -> None:
    assert read(tmp_path) == ()


@pytest.mark.parametrize("value", [*HOSTILE, "@@end", "@@step 1 2 3 x"])
def test_read_hostile_log_stays_a_log(value: str, tmp_path: Path) -> None:
    write_step(tmp_path, "pull", 100.0, 101.0, 0, value)

    (found,) = read(tmp_path)

    assert found.id == "pull"
    assert "\n".join(found.log).rstrip("\n") == value.rstrip("\n")


@pytest.mark.parametrize("text", ["", "@@step 1 2 0 x\n", "Permission denied\n"])
def test_parse_truncated_answer_raises(text: str) -> None:
    with pytest.raises(ValueError, match="truncated"):
        shell.parse(text)
