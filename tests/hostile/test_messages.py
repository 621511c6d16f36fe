"""Texts of hosts and tools in error messages: no control sequence and no secret reaches the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolling_upgrade import config, errors
from rolling_upgrade.engine.masking import MASK
from rolling_upgrade.engine.untrusted import tail
from tests.hostile.hosts import Task, attacker, project

#: Sets the title and the clipboard, erases the screen, and uses C1 controls, bidirectional text and a carriage return.
HOSTILE = "before\x1b]0;owned\x07\x1b]52;c;b3duZWQ=\x07\x1b[2J\x9b31m\u202eafter\u2066\rover\x00\x7f\ud800"
FORBIDDEN = ("\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\r", "\0", "\x7f", "owned", "b3duZWQ=")
CLASSES = sorted(
    name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)
)


@pytest.mark.parametrize("name", [*CLASSES, "ValueError"])
def test_error_of_a_task_prints_no_control_characters(name: str) -> None:
    imports = (
        f"from rolling_upgrade.errors import *\nimport rolling_upgrade.errors\ndef fail(): raise {name}({HOSTILE!r})"
    )
    result = Task(imports, "fail()").wait(60)

    assert result.code not in {0, -1}
    assert "before" in result.errors
    assert "after" in result.errors
    # The traceback of a defect quotes the line of this test, which contains the escaped text.
    shown = "\n".join(row for row in result.errors.splitlines() if "def fail" not in row)
    assert [text for text in FORBIDDEN if text in shown] == []


def test_output_tail_has_no_control_characters() -> None:
    assert [text for text in FORBIDDEN if text in tail(HOSTILE)] == []


def test_error_that_quotes_a_host_masks_control_characters_and_secrets(tmp_path: Path) -> None:
    evil = attacker(tmp_path / "evil", "")
    try:
        root = project(tmp_path / "project", evil=evil)
        secret = next(text for text in config.load("demo", root=root).secrets if len(text) > 8 and "'" not in text)
        # The host splits the secret with an escape sequence, so that a plain search does not find it.
        cut = secret[:3] + r"\033[0m" + secret[3:]
        text = f"printf '%b' 'refused: \\033]0;owned\\007\\0342\\0200\\0256{cut} and {secret}'; exit 1"
        (evil.directory / "attack").write_text(f"#!/bin/sh\n{text}\n")
        imports = "from rolling_upgrade.features.lock.workflow import acquire"
        result = Task(imports, f"acquire('demo', root=Path({str(root)!r}), reason='x')").wait(60)
    finally:
        evil.stop()

    output = result.errors + result.output
    assert "refused" in output, result
    assert MASK in result.errors
    assert secret not in output
    assert [text for text in FORBIDDEN if text in output] == []
