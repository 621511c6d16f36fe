"""Progress inside a step: a line of a script's standard output that starts with PREFIX is not output but progress.

`@@progress text passes 2 of 3` is a text, `@@progress bytes SENT TOTAL` counts the bytes of a transfer.
Standard library only (Python 3.10+).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.shell import quote
from rolling_upgrade.engine.untrusted import Malformed

PREFIX: Final = "@@progress "
#: The longest text; a longer one is cut.
TEXT_CHARACTERS: Final = 80
#: The longest pair of byte counts.
_COUNTS_CHARACTERS = 40


@dataclass(frozen=True)
class Progress:
    """The progress of a step: a text, or the bytes of a transfer, whose `total` is 0 if it is unknown.

    Of a step that shows its output, `lines` are the new lines.
    """

    text: str = ""
    sent: int = 0
    total: int = 0
    lines: str = ""


def parse(line: str) -> Progress | None:
    """Return the progress that a line reports; None for a line of output and for a malformed one."""
    if not line.startswith(PREFIX):
        return None
    kind, _, value = line[: len(PREFIX) + 8 * TEXT_CHARACTERS].removeprefix(PREFIX).partition(" ")
    if kind == "text":
        text = untrusted.line(value, TEXT_CHARACTERS)
        return Progress(text) if text else None
    counts = value.split()
    if kind != "bytes" or len(value) > _COUNTS_CHARACTERS or len(counts) != 2:
        return None
    try:
        return Progress(sent=untrusted.integer(counts[0]), total=untrusted.integer(counts[1]))
    except Malformed:
        return None


def without_progress(text: str) -> str:
    """Remove the lines of progress, malformed ones too, from the output of a script."""
    if PREFIX not in text:
        return text
    kept = [line for line in text.split("\n") if not line.startswith(PREFIX)]
    return "\n".join(kept)


def print_text(form: str, *words: str | int) -> str:
    """A shell command that prints a progress text, without starting a process.

    A line that is shorter than PIPE_BUF is written at once, so several shells may print at the same time.

    Args:
        form: a format of printf.
        words: its arguments, as shell words: quoted, or expansions in double quotes.
    """
    return " ".join(("printf", quote(f"{PREFIX}text {form}\\n"), *map(str, words)))


def print_bytes(sent: str, total: str = "0") -> str:
    """A shell command that prints the bytes of a transfer, given as shell words, without starting a process."""
    return " ".join(("printf", quote(f"{PREFIX}bytes %s %s\\n"), sent, total))
