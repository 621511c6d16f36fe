"""Delete expired items, delete and report them, or list them; features/prune/retention.py decides which have expired.

Every selection calls the shell function `prune_entry KIND NAME BYTES COMMAND…`, so that a dry run lists exactly what a
run deletes.
"""

from __future__ import annotations

from enum import Enum


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
    return f'"$(du -sk "${variable}" 2>/dev/null | awk \'{{ printf "%.0f", $1 * 1024; exit }}\')"'
