"""Every module and directory that the pages about the project name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRODUCT = ROOT / "rolling_upgrade"
#: A code span that is a path in the repository, such as `engine/plan.py` or `tests/hostile/`, or the name of a module.
PATH = re.compile(r"`((?:[a-z_]+/)+(?:[a-z_]+(?:\.[a-z]+)*)?|[a-z_]+\.py)`")


def paths(page: str) -> list[str]:
    return PATH.findall((ROOT / "docs" / page).read_text("utf-8"))


def exists(path: str) -> bool:
    """Look in the repository and in the product; a module without a directory may be anywhere in the product."""
    return any((base / path).exists() for base in (ROOT, PRODUCT)) or ("/" not in path and any(PRODUCT.rglob(path)))


@pytest.mark.parametrize("page", ["architecture.md", "development.md"])
def test_page_names_existing_files(page: str) -> None:
    assert len(paths(page)) > 5
    assert [path for path in paths(page) if not exists(path)] == []
