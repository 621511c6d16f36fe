"""Tables, durations and bars."""

from __future__ import annotations

import pytest

from rolling_upgrade.console.text import duration, fit, one_line, pad, sparkline, table, width


def test_table_wide_characters_are_aligned() -> None:
    rows = table([("主機", "x"), ("web", "y")])

    assert rows == ["主機  x", "web   y"]
    assert [width(row) for row in rows] == [7, 7]


def test_pad_combining_character_takes_no_column() -> None:
    assert pad("e\u0301", 2) == "e\u0301 "


def test_one_line_any_white_space_becomes_one_space() -> None:
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
def test_duration_shows_the_two_largest_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("values", "columns", "expected"),
    [
        ((), 5, ""),
        ((0, 12, 13, 50, 99, 100), 9, "▁▁▂▅██"),
        ((1, None, 3), 9, "▁×▁"),
        ((None,), 9, "×"),
        ((100, 200, 400, 800), 9, "▂▃▅█"),
        ((800, 1, 2, 3), 3, "▁▁▁"),
        ((1, 2), 0, ""),
    ],
)
def test_sparkline_draws_the_newest_values(values: tuple[int | None, ...], columns: int, expected: str) -> None:
    assert sparkline(values, columns) == expected


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("ab", 4, "ab  "),
        ("abcd", 4, "abcd"),
        ("abcde", 4, "abc…"),
        ("網頁一", 4, "網… "),
        ("網頁", 4, "網頁"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
    ],
)
def test_fit_pads_or_cuts_to_the_columns(text: str, columns: int, expected: str) -> None:
    assert fit(text, columns) == expected
