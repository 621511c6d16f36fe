"""The documentation site: generated pages are current, the navigation is complete, and the READMEs are short."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from rolling_upgrade.errors import ExitCode

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README_LINES = 150


def test_task_reference_is_current() -> None:
    # A separate process, because Invoke returns the help of an option only once.
    command = [sys.executable, "-m", "fabfile.reference"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)

    assert (DOCS / "reference/tasks.md").read_text("utf-8") == done.stdout


def test_navigation_names_every_page() -> None:
    named = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE))

    assert named == {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}


def test_every_exit_code_has_its_row() -> None:
    text = (DOCS / "reference/exit-codes.md").read_text("utf-8")

    assert re.findall(r"^\| (\d+) \|", text, re.MULTILINE) == [str(code.value) for code in ExitCode]


def test_architecture_names_modules_that_exist() -> None:
    text = (DOCS / "architecture.md").read_text("utf-8")
    named = re.findall(r"`((?:engine|features|config|tests)/[\w/]*(?:\.py)?)`", text)
    places = (ROOT / "rolling_upgrade", ROOT)

    assert len(named) > 20
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_readmes_are_short() -> None:
    lengths = {name: len((ROOT / name).read_text("utf-8").splitlines()) for name in ("README.md", "README.zh-TW.md")}

    assert {name: length for name, length in lengths.items() if length > README_LINES} == {}
