"""Every `inv` command that a page shows names a task and options that there are; nothing is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fabfile.tasks.namespace import namespace

ROOT = Path(__file__).parent.parent
PAGES = [
    "README.md",
    "README.zh-TW.md",
    "SECURITY.md",
    "CHANGELOG.md",
    *sorted(p.name for p in (ROOT / "docs").glob("*.md")),
]
#: A command: in a span, behind a prompt, or alone on a line of a code block; a `\\` at the end goes on.
COMMAND = re.compile(r"(?:^|`|\$ |&& |; )(?:\.venv/bin/)?inv ((?:[^`\n|#]|\\\||\\\n)+)", re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")
#: Each task, under the name of its collection too where it is that one's default.
OPTIONS = {
    name: {word.replace("_", "-") for argument in namespace[task].get_arguments() for word in argument.names}
    for task, others in namespace.task_names.items()
    for name in (task, *others)
}


def text(page: str) -> str:
    path = ROOT / page if (ROOT / page).is_file() else ROOT / "docs" / page
    return path.read_text("utf-8")


def commands(page: str) -> list[str]:
    """What stands behind `inv` in the page; core options of Invoke (`inv --list`) are left out."""
    found = [match[1].replace("\\\n", " ") for match in COMMAND.finditer(text(page))]
    return [one.partition(" -- ")[0] for one in found if re.match(r"[a-z.]+(?![a-z.*])", one)]


def faults(command: str) -> list[str]:
    """What of the command there is not."""
    task = re.match(r"[a-z]+(?:\.[a-z-]+)?", command)
    assert task is not None
    name = task[0]
    if name not in OPTIONS:
        return [f"{command}: there is no task {name}"]
    return [f"{command}: {name} has no --{option}" for option in OPTION.findall(command) if option not in OPTIONS[name]]


@pytest.mark.parametrize("page", PAGES)
def test_page_shows_commands_that_there_are(page: str) -> None:
    told = [fault for command in commands(page) for fault in faults(command)]

    assert told == [], "\n".join(told)


def test_commands_are_found_and_judged() -> None:
    assert len(commands("operations.md")) > 100
    assert faults("deploy --env production --dry-run") == []
    assert faults("deploy --enviroment production") == ["deploy --enviroment production: deploy has no --enviroment"]
    assert faults("deplyo --env x") == ["deplyo --env x: there is no task deplyo"]
