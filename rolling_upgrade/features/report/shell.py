"""Read the steps of one run from a host's journal: their times, statuses and last lines."""

from __future__ import annotations

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.model import StepRecord
from rolling_upgrade.engine.shell import Script, direct, quote
from rolling_upgrade.engine.untrusted import Malformed

#: Limits: steps of a run, lines of each log, characters of a line.
MOST_STEPS, MOST_LINES, LONGEST_LINE = 300, 15, 400
_STEP, _END = "@@step ", "@@end"


def read(home: str, run: str) -> Script:
    """Print every step of a run in the order of their starts; only the end mark for a run without a journal."""
    return direct(
        f"""\
if cd {quote(f"{home}/journal/{run}")} 2>/dev/null; then
  find . -maxdepth 1 -name '*.session' -printf '%T@ %f\\n' | sort -n | head -n {MOST_STEPS} | while read -r began session; do
    step=${{session%.session}} ended=- status=-
    if [ -f "$step.status" ]; then ended=$(stat -c %.6Y "$step.status") status=$(head -c 9 "$step.status"); fi
    printf '{_STEP}%s %s %s %s\\n' "$began" "$ended" "$status" "$step"
    tail -n {MOST_LINES} "$step.log" 2>/dev/null | cut -c 1-{LONGEST_LINE} | sed 's/^/ /' || :
  done
fi
echo {_END}"""
    )


def parse(text: str) -> tuple[StepRecord, ...]:
    """Parse the output of `read`. Raises Malformed when it was cut short or is invalid."""
    lines = untrusted.rows(text.rstrip("\n"))
    if lines[-1] != _END:
        raise Malformed("the journal is truncated")
    steps: list[tuple[str, list[str]]] = []
    for line in lines[:-1]:
        if line.startswith(_STEP):
            steps.append((line.removeprefix(_STEP), []))
        elif steps:
            steps[-1][1].append(line.removeprefix(" "))
    return tuple(_step(head, log) for head, log in steps)


def _step(head: str, log: list[str]) -> StepRecord:
    began, ended, status, step = untrusted.columns(head.split(" ", 3), 4)
    return StepRecord(
        step,
        untrusted.moment(began),
        None if ended == "-" else untrusted.moment(ended),
        None if status == "-" else untrusted.integer(status),
        tuple(log),
    )
