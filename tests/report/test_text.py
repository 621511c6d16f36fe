"""What may be shown: masking, cleaning, alignment."""

from __future__ import annotations

import base64
import json
import shlex
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabfile.commands import shell
from fabfile.report.text import MASK, clean, duration, mask, one_line, pad, safe, short_digest, table, width


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;new title\x07rest", "rest"),
        ("\x1b]8;;http://evil/\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jcleared", "cleared"),
        ("back\x08space\x07bell\x00nul\x7f", "backspacebellnul"),
        ("10%\r20%\r\nend", "10%\n20%\nend"),
        ("kept\ttab\nand line", "kept\ttab\nand line"),
        ("right\u202eto left", "rightto left"),
        ("half \ud800 pair", "half \N{REPLACEMENT CHARACTER} pair"),
        ("\x1bcreset \x1b(Bcharset", "reset charset"),
        ("升級完成 ✅", "升級完成 ✅"),
    ],
)
def test_clean_control_characters_are_gone(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text())
def test_clean_any_text_leaves_nothing_that_a_terminal_obeys(text: str) -> None:
    assert not [char for char in clean(text) if char not in "\n\t" and (char < " " or "\x7f" <= char <= "\x9f")]


@pytest.mark.parametrize("secret", ["plain-secret", "it's $HOME", 'quo"te\\d', "naïve pässwörd", "a b&c=d/e+f?"])
@pytest.mark.parametrize(
    "form",
    [
        str,
        shlex.quote,
        json.dumps,
        lambda secret: json.dumps(secret, ensure_ascii=False),
        lambda secret: quote(secret, safe=""),
        lambda secret: base64.b64encode(secret.encode()).decode(),
    ],
    ids=["bare", "shell", "json", "json-unicode", "percent", "base64"],
)
def test_mask_secret_in_any_form_is_hidden(secret: str, form: object) -> None:
    assert callable(form)
    written = form(secret)

    shown = mask(f"before {written} after", (secret,))

    assert MASK in shown
    assert secret not in shown
    assert written.strip("\"'") not in shown


def test_mask_secret_of_several_lines_is_hidden_line_by_line() -> None:
    key = "-----BEGIN KEY-----\nabcdefghijkl\n-----END KEY-----\n"

    assert mask("log: abcdefghijkl", (key,)) == f"log: {MASK}"


def test_mask_secret_that_contains_another_is_hidden_whole() -> None:
    assert mask("password1234", ("password", "password1234")) == MASK


def test_mask_value_of_three_characters_stays() -> None:
    assert mask("abc is short", ("abc", "")) == "abc is short"


def test_safe_secret_interrupted_by_an_escape_sequence_is_hidden() -> None:
    assert safe("pass\x1b[0mword99", ("password99",)) == MASK


def test_mask_sign_is_the_one_that_scripts_show() -> None:
    assert shell.MASK == MASK


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
