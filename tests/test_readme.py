"""The English and the Traditional Chinese README have the same commands, tables, headings and links."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGLISH, CHINESE = "README.md", "README.zh-TW.md"
#: A fence with its content; a table's row; `[text](target)`; an image's source.
FENCE = re.compile(r"^```.*?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\|(.*)\|$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")
SPAN = re.compile(r"`([^`\n]+)`")


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def commands(name: str) -> list[str]:
    """Return the code blocks without their comments."""
    return [re.sub(r"[ \t]+#.*", "", block) for block in FENCE.findall(text(name))]


def prose(name: str) -> str:
    return FENCE.sub("", text(name))


def rows(name: str) -> list[str]:
    """Each table row's name: the code in its first cell, or the cell itself (an exit code) where it has none.

    Rows whose first cell is words alone count by their place, since words differ.
    """
    found = []
    for at, row in enumerate(ROW.findall(prose(name))):
        first = re.split(r"(?<!\\)\|", row)[0].strip()
        spans = " ".join(SPAN.findall(first))
        plain = first if re.fullmatch(r"[-\d]+", first) else f"(words, row {at + 1})"
        found.append(spans if first.startswith("`") else plain)
    return found


def levels(name: str) -> list[str]:
    return re.findall(r"^(#+) ", prose(name), re.MULTILINE)


def links(name: str) -> list[str]:
    targets = [first or second for first, second in LINK.findall(prose(name))]
    return ["the other README" if target in (ENGLISH, CHINESE) else target for target in targets]


def lacking(one: list[str], other: list[str]) -> list[str]:
    left = list(other)
    return [item for item in one if item not in left or left.remove(item)]  # type: ignore[func-returns-value]


def differences(what: str, english: list[str], chinese: list[str]) -> str:
    """Return the items that one page lacks, or else the first item at another place, or '' when both are equal."""
    found = [f"{CHINESE} lacks this {what} of {ENGLISH}:\n    {item}" for item in lacking(english, chinese)]
    found += [f"{ENGLISH} lacks this {what} of {CHINESE}:\n    {item}" for item in lacking(chinese, english)]
    if not found:
        moved = [pair for pair in zip(english, chinese, strict=True) if pair[0] != pair[1]]
        found = [f"the order differs: {ENGLISH} has first\n    {a}\n  {CHINESE}\n    {b}" for a, b in moved[:1]]
    return "\n".join(found)


@pytest.mark.parametrize(
    "what, of", [("table row", rows), ("code block", commands), ("heading", levels), ("link", links)]
)
def test_readmes_have_the_same_structure(what: str, of: Callable[[str], list[str]]) -> None:
    told = differences(what, of(ENGLISH), of(CHINESE))

    assert not told, told


def test_readmes_name_the_same_code_in_the_text() -> None:
    english, chinese = (sorted(set(SPAN.findall(prose(name)))) for name in (ENGLISH, CHINESE))

    told = differences("code span", english, chinese)

    assert not told, told


def test_readmes_name_the_same_settings() -> None:
    english, chinese = (sorted(set(re.findall(r"\b[A-Z]+_[A-Z_]*\b", prose(name)))) for name in (ENGLISH, CHINESE))

    told = differences("setting", english, chinese)

    assert not told, told


@pytest.mark.parametrize("name, other", [(ENGLISH, CHINESE), (CHINESE, ENGLISH)])
def test_readme_links_to_the_other_language_at_its_top(name: str, other: str) -> None:
    assert f"]({other})" in text(name).splitlines()[2]


@pytest.mark.parametrize("name", [ENGLISH, CHINESE, "SECURITY.md", "CHANGELOG.md"])
def test_page_every_link_has_a_target(name: str) -> None:
    missing = []
    for first, second in LINK.findall(prose(name)):
        target, _, anchor = (first or second).partition("#")
        if target.startswith(("https:", "http:")):
            continue
        file = (ROOT / name).parent / target if target else ROOT / name
        if not file.exists():
            missing.append(f"{name}: {target} is not there")
        elif anchor and anchor not in anchors(file.read_text("utf-8")):
            missing.append(f"{name}: {target} has no heading for #{anchor}")

    assert not missing, "\n".join(missing)


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub creates for headings."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_differences_names_the_missing_row_and_its_page() -> None:
    assert differences("table row", ["inv a", "inv b"], ["inv a"]) == (
        "README.zh-TW.md lacks this table row of README.md:\n    inv b"
    )
