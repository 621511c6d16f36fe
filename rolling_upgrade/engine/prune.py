"""What retention does with a thing whose time is over: delete it, delete and tell, or only tell. Pure text.

Every selection of what goes calls `gone KIND NAME BYTES COMMAND…`, so that what a dry run lists is what a run deletes.
"""

from __future__ import annotations

from enum import Enum

from fabfile.commands.shell import quote
from fabfile.model import Pruned


class Mode(str, Enum):
    """How far a selection goes."""

    QUIET = "quiet"
    TELL = "tell"
    LIST = "list"


_MEANING = {
    Mode.QUIET: 'shift 3; "$@" >/dev/null 2>&1 </dev/null || :',
    Mode.LIST: 'printf \'would go\\t%s\\t%s\\t%s\\n\' "$1" "$2" "$3"',
    Mode.TELL: """\
gone_row=$(printf '%s\\t%s\\t%s' "$1" "$2" "$3")
  shift 3
  if "$@" >/dev/null 2>&1 </dev/null; then printf 'gone\\t%s\\n' "$gone_row"; else printf 'in use\\t%s\\n' "$gone_row"; fi""",
}


def gone(mode: Mode) -> str:
    """The shell function that a selection calls; it never fails."""
    return f"gone() {{\n  {_MEANING[mode]}\n}}"


def size_of(variable: str) -> str:
    """Shell text for the size in bytes of the file or directory that a shell variable names."""
    return f'"$(du -sk "${variable}" 2>/dev/null | awk \'{{ print $1 * 1024; exit }}\')"'


def containers(names: list[str]) -> str:
    """Remove containers that do not run; one that was started meanwhile stays."""
    size = "podman container inspect --size --format '{{.SizeRw}}'"
    return "\n".join(
        f'gone container {quote(name)} "$({size} {quote(name)} 2>/dev/null || echo 0)" podman rm {quote(name)}'
        for name in names
    )


def flags(paths: list[str]) -> str:
    """Remove the flags of services that are no more."""
    return "\n".join(f"gone flag {quote(path)} 0 rm -f {quote(path)}" for path in paths)


def free_bytes() -> str:
    """Print `free BYTES`: what the file system of the images has left."""
    return "printf 'free\\t%s\\n' \"$(df -Pk \"$HOME\" | awk 'NR == 2 { print $4 * 1024 }')\""


def parse(output: str) -> tuple[tuple[Pruned, ...], int]:
    """What a run told, and the bytes by which the free space grew meanwhile."""
    rows, free = [], []
    for line in output.splitlines():
        columns = line.split("\t")
        if len(columns) == 4:
            rows.append(Pruned(columns[1], columns[2], _number(columns[3]), columns[0]))
        elif len(columns) == 2 and columns[0] == "free":
            free.append(_number(columns[1]))
    return tuple(rows), max(0, free[-1] - free[0]) if free else 0


def _number(text: str) -> int:
    return int(float(text)) if text.replace(".", "", 1).isdigit() else 0
