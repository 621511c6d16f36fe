"""Delete expired items, delete and report them, or list them; features/prune/retention.py decides which have expired.

Every selection calls the shell function `prune_entry KIND NAME BYTES COMMAND…`, so that a dry run lists exactly what a
run deletes.
"""

from __future__ import annotations

from enum import Enum

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.model import ExpiredItem
from rolling_upgrade.engine.shell import quote


class Mode(str, Enum):
    """The action for each selected item: delete it, delete and report it, or only list it."""

    QUIET = "quiet"
    REPORT = "report"
    LIST = "list"


_BODY = {
    Mode.QUIET: 'shift 3; "$@" >/dev/null 2>&1 </dev/null || :',
    Mode.LIST: 'printf \'would go\\t%s\\t%s\\t%s\\n\' "$1" "$2" "$3"',
    Mode.REPORT: """\
gone_row=$(printf '%s\\t%s\\t%s' "$1" "$2" "$3")
  shift 3
  if "$@" >/dev/null 2>&1 </dev/null; then printf 'gone\\t%s\\n' "$gone_row"; else printf 'in use\\t%s\\n' "$gone_row"; fi""",
}


def prune_entry(mode: Mode) -> str:
    """Define the shell function that a selection calls for each item; it never fails."""
    return f"prune_entry() {{\n  {_BODY[mode]}\n}}"


def size_of(variable: str) -> str:
    """Shell text for the size in bytes of the file or directory that a shell variable names."""
    return f'"$(du -sk "${variable}" 2>/dev/null | awk \'{{ print $1 * 1024; exit }}\')"'


def containers(names: list[str]) -> str:
    """Remove stopped containers; `podman rm` refuses one that was started meanwhile."""
    size = "podman container inspect --size --format '{{.SizeRw}}'"
    return "\n".join(
        f'prune_entry container {quote(name)} "$({size} {quote(name)} 2>/dev/null || echo 0)" podman rm {quote(name)}'
        for name in names
    )


def flags(paths: list[str]) -> str:
    """Remove the flags of removed services."""
    return "\n".join(f"prune_entry flag {quote(path)} 0 rm -f {quote(path)}" for path in paths)


def free_bytes() -> str:
    """Print `free BYTES`: the free space on the file system of the images."""
    return "printf 'free\\t%s\\n' \"$(df -Pk \"$HOME\" | awk 'NR == 2 { print $4 * 1024 }')\""


def parse(output: str) -> tuple[tuple[ExpiredItem, ...], int]:
    """The reported items, and the bytes by which the free space grew."""
    items, free = [], []
    for line in untrusted.lines(output):
        columns = line.split("\t")
        if len(columns) == 4:
            items.append(ExpiredItem(columns[1], columns[2], _number(columns[3]), columns[0]))
        elif len(columns) == 2 and columns[0] == "free":
            free.append(_number(columns[1]))
    return tuple(items), max(0, free[-1] - free[0]) if free else 0


def _number(text: str) -> int:
    return int(untrusted.number(text, default=0.0))
