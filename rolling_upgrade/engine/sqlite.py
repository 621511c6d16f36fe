"""SQLite on the host: an online copy, row counts, and integrity checks.

`sqlite_program.py` runs under the host's Python. In input for the `sqlite3` program, names from the database, which the
container writes, would become statements and shell commands.

Source: SQLite's VACUUM INTO takes a consistent copy while others write; `.backup` restarts at each write, and `cp`
is malformed under writes. An `ok` of integrity_check does not prove completeness, so rows are counted too.
"""

from __future__ import annotations

import pkgutil
from functools import cache

from rolling_upgrade.engine.shell import quote, shell_join

#: Runs the program that `sqlite_program` prints; its command and paths follow.
RUN = "python3 -I -"
#: The Python that the program needs, as a condition in Python.
_RECENT = "sys.version_info >= (3, 10)"
#: PRINT_USABLE is Python that prints the line RECENT where the host's Python can execute runs, then USABLE where it can
#: also run the program.
RECENT, USABLE = "python3 yes", "sqlite3 yes"
PRINT_USABLE = f"""\
import sys
if {_RECENT}:
    print("{RECENT}")
    try:
        import sqlite3
        print("{USABLE}")
    except ImportError:
        pass
"""
#: A shell condition: the host's Python can run the program.
CAPABLE = f"python3 -I -c {quote(f'import sqlite3, sys; sys.exit(not ({_RECENT}))')} >/dev/null 2>&1"
#: Exit status of `sqlite_file` for a damaged database; any other failure says that it could not be read.
DAMAGED_STATUS = 3


@cache
def source() -> str:
    """The program's source; inside the watchdog's archive it is not a file of the file system."""
    text = pkgutil.get_data("rolling_upgrade.engine", "sqlite_program.py")
    if text is None:
        raise RuntimeError("sqlite_program.py is missing beside its package")
    return text.decode()


def program() -> str:
    """A shell function `sqlite_program` that prints the program, for RUN."""
    return f"""\
sqlite_program() {{
  cat <<'END-OF-PYTHON'
{source()}END-OF-PYTHON
}}"""


def functions() -> str:
    """A shell function `sqlite_file COMMAND PATH...` that runs the program; its output says why it failed."""
    return f"""\
{program()}
sqlite_file() {{
  ended=0
  sqlite_program | {RUN} "$@" || ended=$?
  if [ "$ended" -gt 128 ]; then
    echo "the database cannot be read: SQLite was killed by signal $((ended - 128)): it took too long or crashed"
  fi
  return "$ended"
}}"""


def kib(source: str) -> str:
    """A shell word: the size of the database and its journals in KiB; 0 without one."""
    return f"$(du -ck {quote(source)} {quote(source + '-wal')} 2>/dev/null | awk 'END {{ printf \"%.0f\", $1 }}')"


def exists(source: str) -> str:
    """A shell condition: the path exists and is not an empty file; the program refuses links and FIFOs."""
    path = quote(source)
    return f"[ -s {path} ] || [ -L {path} ] || {{ [ -e {path} ] && [ ! -f {path} ]; }}"


def copy(source: str) -> str:
    """Copy the database into `database.db` in the working directory while others write to it, and count its rows.

    Sets `journal_mode` and `rows`. The copy is in rollback mode, whatever the mode of the source, and needs no journal.
    """
    return f"""\
if ! said=$(sqlite_file {shell_join("copy", source, "database.db", "rows")}); then printf '%s\\n' "$said"; exit 1; fi
printf '%s\\n' "$said" | sed 1d
said=$(printf '%s\\n' "$said" | head -n 1)
journal_mode=${{said%% *}} rows=${{said##* }}"""
