"""SQLite on the host: an online copy, what is in it, and whether it is whole. Pure text; runs nothing.

Source: SQLite's VACUUM INTO takes a consistent copy while others write; `.backup` restarts at each write and `cp`
is malformed under writes. A mistyped source would give an empty copy and status 0, hence the size check first.
An `ok` of integrity_check says nothing about completeness: rows are counted too.
"""

from __future__ import annotations

from fabfile.commands.shell import quote

#: One statement per table, each printing `COUNT HEX-OF-NAME`: names may hold anything.
_COUNTS = (
    "select 'select count(*) || '' ' || hex(name) || ''' from \"' || replace(name, '\"', '\"\"') || '\";'"
    " from sqlite_master where type = 'table' and substr(name, 1, 7) <> 'sqlite_'"
    " and sql not like 'create virtual%' order by name"
)


def functions() -> str:
    """Shell functions that the other texts use: `sqlite_whole FILE` and `sqlite_rows FILE`."""
    return f"""\
sqlite_whole() {{
  verdict=$(sqlite3 -batch -bail -readonly "$1" 'pragma integrity_check(3)' 2>&1) || :
  if [ "$verdict" != ok ]; then printf 'the database is damaged: %s\\n' "$verdict"; return 1; fi
}}
sqlite_rows() {{
  counts=$(sqlite3 -batch -bail -readonly "$1" {quote(_COUNTS)})
  printf '%s\\n' "$counts" | sqlite3 -batch -bail -readonly "$1"
}}"""


def kib(source: str) -> str:
    """A shell word: what the database and its journals take, in KiB; 0 where there is none."""
    return f"$(du -ck {quote(source)} {quote(source + '-wal')} 2>/dev/null | awk 'END {{ print $1 + 0 }}')"


def copy(source: str) -> str:
    """Copy the database, while others write to it, into `database.db` of the working directory, and count its rows.

    Sets `journal_mode` and `rows`. The copy is in rollback mode whatever the source is in: it stands alone.
    """
    path = quote(source)
    return f"""\
journal_mode=$(printf '%s\\n' '.timeout 10000' 'pragma journal_mode' | sqlite3 -batch -bail {path})
printf '%s\\n' '.timeout 10000' "vacuum into 'database.db'" | sqlite3 -batch -bail {path}
if ! sqlite_whole database.db; then exit 1; fi
sqlite_rows database.db > rows
rows=$(awk '{{ sum += $1 }} END {{ print sum + 0 }}' rows)"""
