"""How an error reads on the screen."""

from __future__ import annotations

from rolling_upgrade.errors import PreflightError


def test_error_of_one_line_is_followed_by_its_next_step() -> None:
    assert str(PreflightError("it is full.", next_step="make room")) == "it is full. Next: make room"


def test_error_of_several_lines_has_its_next_step_on_a_line_of_its_own() -> None:
    # Behind the last words of a program it would be read as theirs.
    error = PreflightError("it is full.\n  web1: 9 MB\n", next_step="make room")

    assert str(error) == "it is full.\n  web1: 9 MB\nNext: make room"
