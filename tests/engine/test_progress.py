"""Lines of progress: what is read from them, and the shell commands that print them."""

from __future__ import annotations

import pytest

from rolling_upgrade.engine.progress import PREFIX, Progress, parse, print_bytes, print_text, without_progress
from rolling_upgrade.engine.shell import quote
from tests.support.shell import HOSTILE, sh


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        ("@@progress text passes 2 of 3", Progress("passes 2 of 3")),
        ("@@progress text passes 2 of 3\n", Progress("passes 2 of 3")),
        ("@@progress text \x1b[31mred\x1b[0m\ttab\x07 \u202eend", Progress("red tab end")),
        ("@@progress text " + "x" * 80, Progress("x" * 80)),
        ("@@progress text " + "x" * 1_000_000, Progress("x" * 79 + "…")),
        ("@@progress bytes 0 0", Progress()),
        ("@@progress bytes 12 9007199254740992\n", Progress(sent=12, total=2**53)),
    ],
)
def test_parse_reads_a_line_of_progress(line: str, progress: Progress) -> None:
    assert parse(line) == progress


@pytest.mark.parametrize(
    "line",
    [
        "",
        "passes 2 of 3",
        " @@progress text indented",
        "@@progress",
        "@@progress ",
        "@@progress text",
        "@@progress text  \x1b[0m \x00",
        "@@progress percent 3",
        "@@progress bytes",
        "@@progress bytes 1",
        "@@progress bytes 1 2 3",
        "@@progress bytes -1 2",
        "@@progress bytes 1 9007199254740993",
        "@@progress bytes 1e3 2",
        "@@progress bytes ١ ٢",
        "@@progress bytes 1 " + " " * 40 + "2",
        "@@progress bytes " + "1" * 1_000_000 + " 2",
    ],
)
def test_parse_drops_output_and_malformed_lines(line: str) -> None:
    assert parse(line) is None


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("", ""),
        ("one\ntwo\n", "one\ntwo\n"),
        ("@@progress text a\none\n@@progress bytes 1 2\n@@progress nonsense\ntwo\n", "one\ntwo\n"),
        ("one\n@@progress text cut o", "one"),
        ("one @@progress text inside a line\n", "one @@progress text inside a line\n"),
        ("one\x0b@@progress text\n", "one\x0b@@progress text\n"),
    ],
)
def test_without_progress_keeps_the_output(text: str, output: str) -> None:
    assert without_progress(text) == output


def test_print_text_expands_its_words() -> None:
    done = sh(f"passes=2\n{print_text('passes %s of %s', chr(34) + '$passes' + chr(34), 3)}")

    assert done.stdout == f"{PREFIX}text passes 2 of 3\n"


@pytest.mark.parametrize("value", HOSTILE)
def test_print_text_interprets_no_value(value: str) -> None:
    done = sh(print_text("it's %s, 5%%", quote(value)))

    assert done.stdout == f"{PREFIX}text it's {value}, 5%\n"


def test_print_bytes_is_read_back() -> None:
    done = sh(f"sent=45100000\n{print_bytes(chr(34) + '$sent' + chr(34))}\n{print_bytes('7', '9')}")

    assert [parse(line) for line in done.stdout.splitlines()] == [Progress(sent=45_100_000), Progress(sent=7, total=9)]


def test_print_starts_no_process() -> None:
    done = sh(f"PATH=/nonexistent\n{print_text('%s s left', 8)}\n{print_bytes('1')}", path="/usr/bin:/bin")

    assert (done.stdout, done.stderr) == (f"{PREFIX}text 8 s left\n{PREFIX}bytes 1 0\n", "")
