"""Every command that a page shows names an existing task and existing options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fabfile import namespace

ROOT = Path(__file__).parent.parent
PAGES = [
    "README.md",
    "README.zh-TW.md",
    "SECURITY.md",
    "CHANGELOG.md",
    *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")),
]
#: A command: in a span, after a prompt, or alone on a line of a code block; a `\\` at the end continues it.
COMMAND = re.compile(
    r"(?:^|`|\$ |&& |; )(?:rolling-upgrade|(?:\.venv/bin/)?inv) ((?:[^`\n|#]|\\\||\\\n)+)", re.MULTILINE
)
OPTION = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")
#: The options of each task, also under the name of the collection of which it is the default.
OPTIONS = {
    name: {word.replace("_", "-") for argument in namespace[task].get_arguments() for word in argument.names}
    for task, others in namespace.task_names.items()
    for name in (task, *others)
}


def text(page: str) -> str:
    path = ROOT / page if (ROOT / page).is_file() else ROOT / "docs" / page
    return path.read_text("utf-8")


def commands(page: str) -> list[str]:
    """Return the arguments of each command on the page, except for core options such as `--list`."""
    found = [match[1].replace("\\\n", " ") for match in COMMAND.finditer(text(page))]
    return [words.partition(" -- ")[0] for words in found if re.match(r"[a-z.]+(?![a-z.*])", words)]


def faults(command: str) -> list[str]:
    """Name the task or the options of the command that do not exist."""
    task = re.match(r"[a-z]+(?:\.[a-z-]+)?", command)
    assert task is not None
    name = task[0]
    if name not in OPTIONS:
        return [f"{command}: there is no task {name}"]
    known = OPTIONS[name] | {"help"}
    return [f"{command}: {name} has no --{option}" for option in OPTION.findall(command) if option not in known]


@pytest.mark.parametrize("page", PAGES)
def test_page_shows_existing_commands(page: str) -> None:
    told = [fault for command in commands(page) for fault in faults(command)]

    assert told == [], "\n".join(told)


def test_documented_commands_are_found_and_checked() -> None:
    assert len(commands("guides/deploy.md")) > 5
    assert faults("deploy --env production --dry-run") == []
    assert faults("deploy --enviroment production") == ["deploy --enviroment production: deploy has no --enviroment"]
    assert faults("deplyo --env x") == ["deplyo --env x: there is no task deplyo"]
