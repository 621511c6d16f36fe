"""The history of a host: lines appended once, and read back whatever else stands in the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fabfile.commands import record
from fabfile.commands.shell import script
from fabfile.model import Color, Outcome, Release, ServiceRelease
from tests.commands.running import HOSTILE, sh

RELEASE = Release(
    "20261123T000000Z-abcdef",
    "2026-11-23T00:00:00+00:00",
    "deploy",
    Outcome.GOOD,
    (("backend", ServiceRelease("registry.test/shop/backend:v2", "sha256:aa", Color.GREEN, "spec")),),
    "ann",
    "because",
    12.3,
)


def history(home: Path) -> tuple[Release, ...]:
    return record.parse(Path(record.history_file(str(home))).read_text("utf-8"))


def test_append_release_reads_back_equal(tmp_path: Path) -> None:
    done = sh(script(record.append(str(tmp_path), RELEASE)))

    assert (done.returncode, history(tmp_path)) == (0, (RELEASE,))


def test_append_repeated_writes_it_once(tmp_path: Path) -> None:
    for seconds in (1.0, 2.0):
        sh(script(record.append(str(tmp_path), replace(RELEASE, seconds=seconds))))

    assert len(history(tmp_path)) == 1


def test_append_bad_outcome_after_a_good_one_of_the_same_run_is_kept(tmp_path: Path) -> None:
    sh(script(record.append(str(tmp_path), RELEASE)))
    sh(script(record.append(str(tmp_path), replace(RELEASE, outcome=Outcome.UNDONE))))

    assert [release.outcome for release in history(tmp_path)] == [Outcome.GOOD, Outcome.UNDONE]


@pytest.mark.parametrize("value", HOSTILE)
def test_append_hostile_reason_and_owner_arrive_and_run_nothing(value: str, tmp_path: Path) -> None:
    wanted = replace(RELEASE, reason=value, owner=value)

    sh(script(record.append(str(tmp_path), wanted)), cwd=tmp_path)

    assert history(tmp_path) == (wanted,)
    assert not (tmp_path / "pwned").exists()


def test_append_where_the_history_cannot_be_written_fails(tmp_path: Path) -> None:
    assert sh(script(record.append(f"{tmp_path}/none", RELEASE))).returncode != 0


def test_line_reason_of_many_lines_stays_one_line() -> None:
    assert "\n" not in record.line(replace(RELEASE, reason="a\nb\u2028c"))


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "not json",
        '{"id": "half',
        "[]",
        "null",
        "3",
        '{"id": "x"}',
        record.line(RELEASE).replace('"good"', '"splendid"'),
        record.line(RELEASE).replace('"green"', '"red"'),
        record.line(RELEASE).replace('"seconds": 12.3', '"seconds": null'),
        record.line(RELEASE).replace('"services": {', '"services": [], "x": {'),
    ],
)
def test_parse_line_that_is_not_ours_is_left_out(garbage: str) -> None:
    assert record.parse(f"{record.line(RELEASE)}\n{garbage}\n{record.line(RELEASE)}") == (RELEASE, RELEASE)
