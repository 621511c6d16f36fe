"""How one run passed on a host: its stages with their times, statuses and last words, out of the journal. Pure text."""

from __future__ import annotations

from fabfile.commands.journal import direct
from fabfile.commands.shell import Script, quote
from fabfile.model import Stage

#: What is read at the most: stages of a run, lines of each log, characters of a line.
MOST_STAGES, MOST_LINES, LONGEST_LINE = 300, 15, 400
_STAGE, _END = "@@stage ", "@@end"


def read(home: str, run: str) -> Script:
    """Print every stage of a run in the order in which they began; nothing but the end for a run without a journal."""
    return direct(
        f"""\
if cd {quote(f"{home}/journal/{run}")} 2>/dev/null; then
  find . -maxdepth 1 -name '*.session' -printf '%T@ %f\\n' | sort -n | head -n {MOST_STAGES} | while read -r began session; do
    step=${{session%.session}} ended=- status=-
    if [ -f "$step.status" ]; then ended=$(stat -c %.6Y "$step.status") status=$(head -c 9 "$step.status"); fi
    printf '{_STAGE}%s %s %s %s\\n' "$began" "$ended" "$status" "$step"
    tail -n {MOST_LINES} "$step.log" 2>/dev/null | cut -c 1-{LONGEST_LINE} | sed 's/^/ /' || :
  done
fi
echo {_END}"""
    )


def parse(text: str) -> tuple[Stage, ...]:
    """The stages that `read` printed. Raises ValueError when the answer was cut short or is none of ours."""
    lines = text.rstrip("\n").split("\n")
    if lines[-1] != _END:
        raise ValueError("the journal was cut short")
    found: list[tuple[str, list[str]]] = []
    for line in lines[:-1]:
        if line.startswith(_STAGE):
            found.append((line.removeprefix(_STAGE), []))
        elif found:
            found[-1][1].append(line.removeprefix(" "))
    return tuple(_stage(head, log) for head, log in found)


def _stage(head: str, log: list[str]) -> Stage:
    began, ended, status, step = head.split(" ", 3)
    return Stage(
        step,
        float(began),
        None if ended == "-" else float(ended),
        None if status == "-" else int(status),
        tuple(log),
    )
