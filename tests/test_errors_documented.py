"""docs/errors.md has a section for every error of the source, and for no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Kind
from tests.support.error_messages import messages, texts

PAGE = (Path(__file__).parent.parent / "docs" / "errors.md").read_text("utf-8")
#: The parts of each section. The section of health checks has a table instead of a list of texts.
PARTS = ("Meaning.", "Check.", "Fix.", "Resolved when")
SECTIONS: dict[str, str] = dict(re.findall(r"^### (.*?)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))


def documented() -> list[str]:
    blocks = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_every_error_has_its_section() -> None:
    known = set(documented())
    missing = [message for message in messages() if message.text not in known]

    listed = "\n".join(f"  {message.text}    ({message.place})" for message in missing)
    assert not missing, (
        "docs/errors.md has no section for these texts. Add each line unchanged to the ```text block of the\n"
        f"the section whose cure it shares, or write a section for it:\n{listed}"
    )


def test_every_listed_error_exists() -> None:
    existing = {line.strip() for text in texts() for line in text.splitlines()} | {
        message.text for message in messages()
    }
    stale = [line for line in documented() if line not in existing]

    assert not stale, "docs/errors.md lists texts that do not exist in the source:\n  " + "\n  ".join(stale)


def test_every_error_is_listed_once() -> None:
    lines = documented()

    assert sorted(line for line in set(lines) if lines.count(line) > 1) == []


@pytest.mark.parametrize("title", SECTIONS)
def test_section_names_the_fix_and_how_to_verify_it(title: str) -> None:
    text = SECTIONS[title]

    assert [part for part in PARTS if f"**{part}**" not in text] == []
    assert "```text" in text or title == "A health check fails"


def test_contents_link_to_every_section() -> None:
    contents = PAGE.partition("\n## ")[0]

    assert [title for title in SECTIONS if f"(#{anchor(title)})" not in contents] == []


def test_every_kind_of_health_check_has_its_row() -> None:
    rows = re.findall(r"^\| (`.*?) \|", SECTIONS["A health check fails"], re.MULTILINE)

    assert [kind.value for kind in Kind if not any(f"`{kind.value}`" in row for row in rows)] == []
