"""What may be shown: alignment and words for sizes and times."""

from __future__ import annotations

import pytest

from fabfile.report.text import duration, one_line, pad, short_digest, table, width


def test_table_wide_characters_are_aligned() -> None:
    rows = table([("主機", "x"), ("web", "y")])

    assert rows == ["主機  x", "web   y"]
    assert [width(row) for row in rows] == [7, 7]


def test_pad_combining_character_takes_no_column() -> None:
    assert pad("e\u0301", 2) == "e\u0301 "


def test_one_line_any_white_space_becomes_one_blank() -> None:
    assert one_line(" a\n\tb  c ") == "a b c"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0.0s"),
        (2.14, "2.1s"),
        (59.94, "59.9s"),
        (192, "3m 12s"),
        (18_450, "5h 07m"),
        (356_400, "4d 03h"),
    ],
)
def test_duration_two_largest_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_short_digest_twelve_digits() -> None:
    assert short_digest("sha256:" + "ab12" * 16) == "ab12ab12ab12"
