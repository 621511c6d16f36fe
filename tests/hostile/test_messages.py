"""What a host or a tool says on its way into an error: the terminal obeys none of it, and no secret is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolling_upgrade import config, errors
from rolling_upgrade.engine.masking import MASK
from rolling_upgrade.engine.untrusted import tail
from tests.hostile.hosts import Task, attacker, project

#: A title, the clipboard, an erased screen, colors in one byte, text backwards, a line written over.
HOSTILE = "before\x1b]0;owned\x07\x1b]52;c;b3duZWQ=\x07\x1b[2J\x9b31m\u202eafter\u2066\rover\x00\x7f\ud800"
FORBIDDEN = ("\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\r", "\0", "\x7f", "owned", "b3duZWQ=")
CLASSES = sorted(name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception))


@pytest.mark.parametrize("name", [*CLASSES, "ValueError"])
def test_error_of_a_task_prints_no_control_characters(name: str) -> None:
    imports = (
        f"from rolling_upgrade.errors import *\nimport rolling_upgrade.errors\ndef fail(): raise {name}({HOSTILE!r})"
    )
    ended = Task(imports, "fail()").end(60)

    assert ended.code not in {0, -1}
    assert "before" in ended.errors
    assert "after" in ended.errors
    # A defect's traceback quotes this test's own line, where all of it stands escaped.
    said = "\n".join(row for row in ended.errors.splitlines() if "def fail" not in row)
    assert [found for found in FORBIDDEN if found in said] == []


def test_output_tail_has_no_control_characters() -> None:
    assert [found for found in FORBIDDEN if found in tail(HOSTILE)] == []


def test_error_that_quotes_a_host_masks_control_characters_and_secrets(tmp_path: Path) -> None:
    evil = attacker(tmp_path / "evil", "")
    try:
        root = project(tmp_path / "project", evil=evil)
        secret = next(one for one in config.load("demo", root=root).secrets if len(one) > 8 and "'" not in one)
        # The host breaks what it knows with an escape sequence, so that a plain search would not find it.
        cut = secret[:3] + r"\033[0m" + secret[3:]
        text = f"printf '%b' 'refused: \\033]0;owned\\007\\0342\\0200\\0256{cut} and {secret}'; exit 1"
        (evil.directory / "attack").write_text(f"#!/bin/sh\n{text}\n")
        imports = "from rolling_upgrade.features.lock.workflow import acquire"
        ended = Task(imports, f"acquire('demo', root=Path({str(root)!r}), reason='x')").end(60)
    finally:
        evil.stop()

    assert "refused" in ended.errors + ended.output, ended
    assert MASK in ended.errors
    assert secret not in ended.errors + ended.output
    assert [found for found in FORBIDDEN if found in ended.errors + ended.output] == []
