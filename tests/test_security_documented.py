"""docs/security.md names existing tests for each promise."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)))
PART = PAGE.partition("## Promises")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| (.+?) \| (.+?) \|$", PART, re.MULTILINE)
PROMISES = [row for row in ROWS if row[0] != "promise"]


def test_page_has_promises() -> None:
    assert len(PROMISES) > 15


@pytest.mark.parametrize(("promise", "attacks"), PROMISES)
def test_promise_names_a_test_that_attacks_it(promise: str, attacks: str) -> None:
    assert re.search(r"`tests/[\w/]+\.py(::\w+)?`", attacks), promise


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_named_test_exists(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}

    assert any(function.startswith("test_") for function in defined)
    assert not name or name in defined
