"""Masking of secrets, and removal of control characters."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolling_upgrade.engine.masking import MASK, clean, mask, safe


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
def test_clean_removes_control_characters(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text())
def test_clean_removes_every_terminal_control_sequence(text: str) -> None:
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
        lambda secret: base64.b64encode(f"bob:{secret}".encode()).decode(),
        lambda secret: base64.b64encode(f"robot:{secret}!".encode()).decode(),
        lambda secret: base64.b64encode(f"alice:{secret}!!".encode()).decode(),
        repr,
        html.escape,
        quote_plus,
        lambda secret: re.sub("%..", lambda match: match[0].lower(), quote(secret, safe="")),
        lambda secret: '"' + re.sub(r'([\\"$`])', r"\\\1", secret) + '"',
    ],
    ids=[
        *("bare", "shell", "json", "json-unicode", "percent", "base64", "login", "robot", "alice"),
        *("repr", "html", "plus", "percent-lower", "double-quoted"),
    ],
)
def test_mask_hides_every_form_of_a_secret(secret: str, form: object) -> None:
    assert callable(form)
    written = form(secret)

    shown = mask(f"before {written} after", (secret,))

    assert MASK in shown
    assert secret not in shown
    assert written.strip("\"'") not in shown


def test_mask_secret_of_several_lines_is_hidden_line_by_line() -> None:
    key = "-----BEGIN KEY-----\nabcdefghijkl\n-----END KEY-----\n"

    assert mask("log: abcdefghijkl", (key,)) == f"log: {MASK}"


def test_mask_secret_that_contains_another_is_hidden_completely() -> None:
    assert mask("password1234", ("password", "password1234")) == MASK


def test_mask_keeps_short_values() -> None:
    assert mask("abc is short", ("abc", "")) == "abc is short"


def test_safe_secret_interrupted_by_an_escape_sequence_is_hidden() -> None:
    assert safe("pass\x1b[0mword99", ("password99",)) == MASK


def test_mask_secret_of_several_lines_also_line_by_line_but_not_the_frame_of_a_key() -> None:
    pem = "-----BEGIN EC PRIVATE KEY-----\n  MHcCAQEEIIg8\nAwEHoUQDQgAE\n-----END EC PRIVATE KEY-----\n"
    lines = "-----BEGIN EC PRIVATE KEY-----\ngot MHcCAQEEIIg8, then AwEHoUQDQgAE"

    assert mask(lines, [pem]) == f"-----BEGIN EC PRIVATE KEY-----\ngot {MASK}, then {MASK}"
    assert mask(f"<{pem}>", [pem]) == f"<{MASK}>"
