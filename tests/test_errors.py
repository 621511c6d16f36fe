"""The text of errors."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rolling_upgrade.errors import PreflightError

ROOT = Path(__file__).parent.parent


def test_error_of_one_line_is_followed_by_its_next_step() -> None:
    assert str(PreflightError("it is full.", next_step="make room")) == "it is full. Next: make room"


def test_error_of_several_lines_has_its_next_step_on_a_line_of_its_own() -> None:
    # On the same line it would look like a part of a program's output.
    error = PreflightError("it is full.\n  web1: 9 MB\n", next_step="make room")

    assert str(error) == "it is full.\n  web1: 9 MB\nNext: make room"


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("{bin}/inv", "status", "--env", "production"), "inv"),
        (("{bin}/invoke", "status", "--env", "production"), "inv"),
        (("{bin}/fab", "status", "--env", "production"), "fab"),
        (("{python}", "-m", "invoke", "status", "--env", "production"), "inv"),
        (("{python}", "-m", "fabric", "status", "--env", "production"), "fab"),
        (("{python}", "rolling-upgrade", "status", "--env", "production"), "rolling-upgrade"),
    ],
)
def test_next_step_names_the_program_that_runs(command: tuple[str, ...], named: str, tmp_path: Path) -> None:
    for file in ("tasks.py", "fabfile.py"):
        (tmp_path / file).write_text("from rolling_upgrade.tasks import namespace\n")
    (tmp_path / "rolling-upgrade").write_text("from rolling_upgrade.cli import main; main()\n")
    words = [word.format(bin=Path(sys.executable).parent, python=sys.executable) for word in command]

    done = subprocess.run(
        words,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr.rstrip().rpartition(": ")[2]) == (2, f"{named} init")


def test_text_of_the_product_names_no_program_that_may_be_missing() -> None:
    """Markers in files on hosts must not change; docstrings may mention `inv`."""
    kept = re.compile(r"Made by inv|(BEGIN|END) inv access|^inv setup\\\|rolling-site$")
    found = []
    for path in (ROOT / "rolling_upgrade").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        found += [
            f"{path}:{node.lineno}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
            if re.search(r"\b(inv|fab) [a-z]", node.value) and not kept.search(node.value)
        ]

    assert not found, "write {PROGRAM} of rolling_upgrade.errors in place of inv:\n" + "\n".join(found)
