"""Database files of a hostile container: names, schemas, pages and journals.

Each text that a program runs as a command creates a file called `pwned` in the working directory.
"""

from __future__ import annotations

import shutil
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

#: Names of tables. A backup counts the rows of each.
NAMES = (
    '"; .shell touch pwned',
    '"\n.shell touch pwned\n--',
    '";\n.system touch pwned\n',
    "'\n.shell touch pwned\n",
    "x\r\n.shell touch pwned\r\n",
    "x' || writefile('pwned', 'x') || '",
    "x\"; attach 'pwned' as y; create table y.z (a); --",
    'x"; drop table item; --',
    "$(touch pwned)",
    "`touch pwned`",
    "'; touch pwned; '",
    "[x]",
    "`x`",
    '""',
    "''",
    " ",
    "-",
    "--help",
    "-cmd",
    "a\tb",
    "\x1b]0;pwned\x07\x1b[2J",
    "\u202egnp.exe",
    "\u2028line",
    "繁體中文 🚀",
    "select",
    "main.item",
    "%s%n\\n\\x41",
    "END-OF-PYTHON",
    "END-OF-THE-PROGRAM",
    "x" * 100_000,
    "Sqlite-like",
    "\x01",
    "count(*) from item; --",
    "pragma_table_list",
)

Make = Callable[[sqlite3.Connection], object]


def schema(database: sqlite3.Connection, statement: str, *values: object) -> None:
    """Write to the schema table directly."""
    database.execute("pragma writable_schema=on")
    database.execute(statement, values)
    database.commit()


def entry(name: str, kind: str = "'table'", sql: str = "null") -> Make:
    """Insert a row into the schema table; the name is an SQL expression."""
    statement = (
        f"insert into sqlite_master (type, name, tbl_name, rootpage, sql) values ({kind}, {name}, {name}, 0, {sql})"
    )
    return lambda database: schema(database, statement)


def cut_quote(database: sqlite3.Connection) -> None:
    """A NUL cuts off the closing quote of a name, and the next name ends the statement and starts a line.

    In SQL text for the sqlite3 program, everything between the quotes is the name of an existing view.
    """
    second = ";\n.shell touch pwned\n"
    between = f"select count(*) || ' {second.encode().hex().upper()}' from "
    database.execute(f'create view "!\n{between}" as select 1')
    database.execute(f'create table "{second}" (a)')
    entry("'!' || char(0)", sql="'create/**/virtual table \"!\" using none(a)'")(database)


def script(*statements: str) -> Make:
    return lambda database: database.executescript(";".join(statements))


def many_tables(database: sqlite3.Connection) -> None:
    database.executescript("".join(f"create table t{number} (a);" for number in range(500)))


def not_utf8(database: sqlite3.Connection) -> None:
    """Create a name that is not valid UTF-8."""
    database.executescript("create table placeholder (a); insert into placeholder values (1)")
    schema(
        database,
        "update sqlite_master set name = cast(x'fffe' as text), tbl_name = cast(x'fffe' as text),"
        " sql = cast(x'435245415445205441424c452022fffe2220286129' as text) where name = 'placeholder'",
    )


_ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n"
#: Schemas. Each database also has an application's table of 20 rows.
SCHEMAS: dict[str, Make] = {
    "a NUL cuts the quote": cut_quote,
    "a name is NULL": entry("null"),
    "a name is a blob": entry("x'00ff'"),
    "a name is a number": entry("7"),
    "a name begins a line": entry("char(10) || '.shell touch pwned'"),
    "a name is a statement": entry("'x\"; attach ''pwned'' as y; --'"),
    "a table hides as a virtual one": entry("'v' || char(0)", sql="'create virtual table v using none(a)'"),
    "a virtual table without its module": entry("'v'", sql="'create virtual table v using none(a)'"),
    "a virtual table loads a program": script("create virtual table f using fts5(a)", "insert into f values ('x')"),
    "an endless view": script(f"create view endless as {_ENDLESS}"),
    "views that double": script(
        "create view v0 as select 1 as a",
        *(f"create view v{n} as select x.a from v{n - 1} x union all select y.a from v{n - 1} y" for n in range(1, 40)),
    ),
    "a view loads a program": script("create view load as select load_extension('./pwned.so')"),
    "a view writes a file": script("create view w as select writefile('pwned', 'x')"),
    "a trigger on everything": script(
        "create trigger t after insert on item begin select load_extension('x'); delete from item; end"
    ),
    "a generated column": script("create table g (a, b as (upper(a)) stored)", "insert into g (a) values ('x')"),
    "an index on an expression": script("create index i on item (length(text))"),
    "a partial index": script("create index p on item (n) where n > 5"),
    "a table without rowid": script("create table w (a primary key) without rowid", "insert into w values (1), (2)"),
    "shadow tables as tables": script("create table f_data (a)", "create table f_content (a)"),
    "statistics that lie": script("analyze", "update sqlite_stat1 set stat = 'x'' 99999999999999999999 unordered'"),
    "a strict table": script("create table s (a integer) strict", "insert into s values (1)"),
    "five hundred tables": many_tables,
    "a user version and an application id": script("pragma user_version = 2147483647", "pragma application_id = -1"),
    "a name that is no UTF-8": not_utf8,
}


def application_table(path: str, rows: int = 20) -> sqlite3.Connection:
    """Create a database with the application's table."""
    database = sqlite3.connect(path)
    database.execute("create table item (n integer primary key, text)")
    database.executemany("insert into item values (?, ?)", ((n, "x" * 50) for n in range(rows)))
    database.commit()
    return database


def write(path: str, make: Make) -> None:
    """Write a complete database with a hostile part."""
    with closing(application_table(path)) as database:
        make(database)
        database.commit()


def table_named(name: str) -> Make:
    quoted = '"' + name.replace('"', '""') + '"'

    def make(database: sqlite3.Connection) -> None:
        database.execute(f"create table {quoted} (a)")
        database.execute(f"insert into {quoted} values (1), (2), (3)")

    return make


def tree_that_explodes(path: str) -> None:
    """Write a table whose pages are read exponentially often: each inner page refers 300 times to one child."""
    page, depth, width = 4096, 8, 300
    with closing(application_table(path)) as database:
        root = database.execute("select rootpage from sqlite_master where name = 'item'").fetchone()[0]
    content = bytearray(Path(path).read_bytes())
    first = len(content) // page + 1
    leaf = bytes(content[(root - 1) * page : root * page])
    for level in range(depth):
        below = first + level + 1
        cells = b"".join(struct.pack(">IB", below, 1) for _ in range(width))
        start = page - len(cells)
        header = struct.pack(">BHHHBI", 5, 0, width, start, 0, below)
        pointers = b"".join(struct.pack(">H", start + 5 * number) for number in range(width))
        inner = (header + pointers).ljust(start, b"\0") + cells
        if level == 0:
            content[(root - 1) * page : root * page] = inner
            first -= 1
        else:
            content += inner
    content += leaf
    content[28:32] = struct.pack(">I", len(content) // page)
    Path(path).write_bytes(content)


def with_hot_journal(path: str, victim: str = "") -> None:
    """Write a database whose writer was killed during a commit; its journal may name a file to delete."""
    work = f"{path}.work"
    with closing(application_table(work, 2000)) as database:
        database.execute("pragma cache_size = 1")
        database.execute("pragma cache_spill = 1")
        database.execute("update item set text = 'changed' || text")
        shutil.copy(work, path)
        shutil.copy(f"{work}-journal", f"{path}-journal")
        database.rollback()
    Path(work).unlink()
    if victim:
        name = victim.encode()
        with Path(f"{path}-journal").open("ab") as journal:
            total = sum(name) & 0xFFFFFFFF
            journal.write(struct.pack(">I", 0x40000000 // 4096 + 1) + name + struct.pack(">II", len(name), total))
            journal.write(bytes.fromhex("d9d505f920a163d7"))
