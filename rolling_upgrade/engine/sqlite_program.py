"""The program that reads an application's SQLite file on a host: `python3 -I` gets its source on standard input.

The container writes the file and all that is beside it, so every byte is untrusted. Nothing in it becomes a part of a
program: a name is at most one quoted identifier. The file is opened read-only, because SQLite deletes a file that a
hostile rollback journal names; links, FIFOs and directories are refused; time, memory and output have limits.
Source: sqlite.org/security.html, "Untrusted SQLite Database Files"; sqlite.org/fileformat2.html, "The Rollback Journal".
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

#: Exit status for a damaged database, and for one that could not be read; Python itself fails with 1 or 2.
DAMAGED, UNREADABLE = 3, 4
#: The time limit for a locked database, in seconds: of a copy, and of a health check.
COPY_BUSY_SECONDS, CHECK_BUSY_SECONDS = 10.0, 3.0
#: The time limit of one call, in seconds: a hostile file can make a statement endless.
LONGEST_SECONDS = 4 * 3600
#: The space of a copy beyond twice the size of its source, and the space that it leaves free on the file system.
MARGIN_BYTES, SPARE_BYTES = 16 * 1024**2, 50 * 1024**2
#: The memory for everything but the largest row.
MEMORY_BYTES = 512 * 1024**2
LONGEST_MESSAGE = 300
JOURNALS = ("-journal", "-wal", "-shm")
#: The offset and length of SQLite's shared lock. Source: os.h, SHARED_FIRST and SHARED_SIZE.
SHARED_FIRST, SHARED_SIZE = 0x40000002, 510
#: The last bytes of a rollback journal that names another file. Source: pager.c, readSuperJournal().
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")

_TABLES = (
    "select name, hex(name) from sqlite_master where type = 'table' and rootpage > 0"
    " and substr(name, 1, 7) <> 'sqlite_' and sql not like 'create virtual%' order by name"
)


class DatabaseDamaged(Exception):
    """The content of the database is damaged."""


class DatabaseRefused(Exception):
    """The file cannot be read, or is not a regular file."""


def pinned(path: str) -> tuple[int, os.stat_result]:
    """Open a regular file without following a link or waiting for a FIFO.

    The descriptor stays open: closing it would drop the locks that SQLite holds on the same file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise DatabaseRefused(f"there is no file {path}") from None
    except OSError as error:
        reason = "is a symlink; name its target" if Path(path).is_symlink() else f"cannot be opened: {error.strerror}"
        raise DatabaseRefused(f"{path} {reason}") from None
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        raise DatabaseRefused(f"{path} is not a regular file")
    return handle, found


def found_at(path: str) -> os.stat_result | None:
    """The status of the file at the path, without following a link; None if it is missing, as a journal may be."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def limit(kind: int, most: int) -> None:
    """Lower a limit of this process; the hard limit, which only root could raise again, stays."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def connect(path: str, *, busy: float = COPY_BUSY_SECONDS, write: bool = False) -> sqlite3.Connection:
    """Open the database at the path. Refuses a file that replaces it meanwhile."""
    handle, known = pinned(path)
    for beside in (path + ending for ending in JOURNALS):
        found = found_at(beside)
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise DatabaseRefused(f"{beside} is not a regular file")
    address = f"file://{quote(os.fsencode(Path(path).absolute()))}?mode={'rw' if write else 'ro'}"
    limit(resource.RLIMIT_AS, MEMORY_BYTES + 3 * min(known.st_size, 1024**3))
    database = sqlite3.connect(address, timeout=busy, uri=True, isolation_level=None)
    if not any(os.path.samestat(known, found) for found in open_files(handle)):
        raise DatabaseRefused(f"{path} was replaced while it was opened")
    harden(database)
    return database


def open_files(but: int) -> Iterator[os.stat_result]:
    """Every open file of this process except one."""
    for number in (int(entry.name) for entry in Path("/proc/self/fd").iterdir()):
        if number != but:
            try:
                yield os.fstat(number)
            except OSError:  # the descriptor of the list itself
                continue


def harden(database: sqlite3.Connection) -> None:
    """Disable what a hostile schema could abuse. Source: sqlite.org/security.html; setconfig is new in Python 3.12."""
    database.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    for setting in ("trusted_schema=off", "cell_size_check=on", "mmap_size=0"):
        database.execute(f"pragma {setting}").fetchall()
    if hasattr(database, "setconfig"):
        for name, on in (("DEFENSIVE", True), ("ENABLE_TRIGGER", False), ("ENABLE_VIEW", False)):
            database.setconfig(getattr(sqlite3, f"SQLITE_DBCONFIG_{name}"), on)


def check(path: str) -> None:
    """Raise DatabaseDamaged unless the database is intact."""
    with closing(connect(path)) as database:
        found = [str(row[0]) for row in database.execute("pragma integrity_check(3)")]
    if found != ["ok"]:
        raise DatabaseDamaged("; ".join(clean(message) for message in found) or "integrity_check says nothing")


def count(path: str) -> list[tuple[str, int | None]]:
    """The name of each table, in hexadecimal digits, and its rows; None for a name that no statement can hold.

    After `check` only: in a damaged file a count may never end.
    """
    with closing(connect(path)) as database:
        names = database.execute(_TABLES).fetchall()
        return [(digits, rows_of(database, name)) for name, digits in names]


def rows_of(database: sqlite3.Connection, name: object) -> int | None:
    """The rows of one table. Raises sqlite3.Error when the table is damaged."""
    if not isinstance(name, str) or "\0" in name or any("\ud800" <= char <= "\udfff" for char in name):
        return None
    identifier = '"' + name.replace('"', '""') + '"'
    try:
        return int(database.execute(f"select count(*) from main.{identifier}").fetchone()[0])  # noqa: S608 - quoted above
    except sqlite3.OperationalError as error:
        if str(error).startswith("no such table"):
            return None
        raise


def copy(source: str, target: str, rows: str) -> None:
    """Copy the database while others write to it, check the copy, and record the rows of its tables.

    Prints the source's journal mode and the number of all rows, then a line for what could not be counted.
    """
    limit_output(source, target)
    try:
        mode = vacuum(source, target)
    except sqlite3.OperationalError as error:
        if "readonly" not in str(error):
            raise
        mode = vacuum_rolled_back(source, target)
    check(target)
    counted = count(target)
    with Path(rows).open("x", encoding="ascii") as file:
        file.writelines(f"{'-' if number is None else number} {digits}\n" for digits, number in counted)
    say(f"{mode} {sum(number or 0 for _, number in counted)}")
    for digits in (digits for digits, number in counted if number is None):
        say(f"not counted: a table whose name cannot be used in SQL (hexadecimal: {clean(digits)})")


def limit_output(source: str, target: str) -> None:
    """Limit the size of written files to the need of a copy: a hostile file can make a copy endless."""
    size = sum(found.st_size for path in (source, source + "-wal") if (found := found_at(path)))
    room = os.statvfs(Path(target).absolute().parent)
    free = max(room.f_bavail * room.f_frsize - SPARE_BYTES, MARGIN_BYTES)
    limit(resource.RLIMIT_FSIZE, min(2 * size + MARGIN_BYTES, free))


def vacuum(source: str, target: str, *, write: bool = False) -> str:
    """Write a consistent copy that needs no journal, and return the source's journal mode."""
    with closing(connect(source, write=write)) as database:
        mode = str(database.execute("pragma journal_mode").fetchone()[0])
        database.execute("vacuum into ?", (target,))
    return mode if mode in {"delete", "truncate", "persist", "wal"} else "delete"


def vacuum_rolled_back(source: str, target: str) -> str:
    """Copy a database whose last writer was killed: its journal is rolled back in a private copy.

    SQLite's shared lock prevents a concurrent rollback by another process, and waits for one in progress.
    """
    private = f"{target}.rolled-back"
    try:
        handle, _ = pinned(source)
        try:
            fcntl.lockf(handle, fcntl.LOCK_SH | fcntl.LOCK_NB, SHARED_SIZE, SHARED_FIRST)
        except BlockingIOError:
            return vacuum(source, target)
        if found_at(source + "-journal") is None:
            return vacuum(source, target)
        for ending in ("", "-journal"):
            copy_bytes(source + ending, private + ending)
        refuse_journal_of_several_files(private)
        fcntl.lockf(handle, fcntl.LOCK_UN, SHARED_SIZE, SHARED_FIRST)
        return vacuum(private, target, write=True)
    finally:
        for ending in ("", *JOURNALS):
            Path(private + ending).unlink(missing_ok=True)


def refuse_journal_of_several_files(path: str) -> None:
    """Refuse a rollback journal that names another file: SQLite would delete that file after the rollback."""
    if found_at(path + "-journal") is None:
        return
    handle, found = pinned(path + "-journal")
    if os.pread(handle, len(JOURNAL_MAGIC), max(0, found.st_size - len(JOURNAL_MAGIC))) == JOURNAL_MAGIC:
        raise DatabaseRefused(
            f"{path}-journal belongs to a commit across several files: start the application, which rolls it back"
        )


def copy_bytes(source: str, target: str) -> None:
    """Copy a regular file, up to its current size."""
    handle, found = pinned(source)
    with Path(target).open("xb") as file:
        at = 0
        while at < found.st_size and (part := os.pread(handle, min(1024**2, found.st_size - at), at)):
            file.write(part)
            at += len(part)


def compare(path: str, rows: str) -> None:
    """Raise DatabaseDamaged unless the database is intact and its tables have the recorded numbers of rows.

    A table whose rows were not counted, at either time, is compared by name only.
    """
    check(path)
    found = count(path)
    with Path(rows).open(encoding="ascii", errors="replace") as file:
        expected = [line.rstrip("\n").partition(" ") for line in file]
    same = [digits for digits, _ in found] == [digits for _, _, digits in expected]
    pairs = zip((number for _, number in found), (word for word, _, _ in expected), strict=False)
    if not same or any(number is not None and word not in {"-", str(number)} for number, word in pairs):
        raise DatabaseDamaged("the row counts differ from those recorded with the backup")


def prepare(path: str, mode: str) -> None:
    """Give a restored database its journal mode and check it."""
    with closing(connect(path, write=True)) as database:
        database.execute(f"pragma journal_mode={mode}").fetchall()
    check(path)


def fold(path: str) -> None:
    """Checkpoint the write-ahead log into the database; requires that no other process has it open."""
    refuse_journal_of_several_files(path)
    with closing(connect(path, write=True)) as database:
        database.execute("pragma wal_checkpoint(truncate)").fetchall()


def entries(path: str) -> None:
    """Print the number of entries in the schema."""
    with closing(connect(path, busy=CHECK_BUSY_SECONDS)) as database:
        say(str(database.execute("select count(*) from sqlite_master").fetchone()[0]))


def quick(path: str) -> None:
    """Print `ok`, or the first error."""
    with closing(connect(path, busy=CHECK_BUSY_SECONDS)) as database:
        say(clean("; ".join(str(row[0]) for row in database.execute("pragma quick_check(1)"))))


def clean(text: str) -> str:
    """At most LONGEST_MESSAGE characters on one line, with no control characters."""
    line = " ".join(text[: 4 * LONGEST_MESSAGE].split())
    shown = "".join(char if char.isprintable() else "?" for char in line[:LONGEST_MESSAGE])
    return shown + ("..." if len(line) > LONGEST_MESSAGE or len(text) > 4 * LONGEST_MESSAGE else "")


def say(line: str) -> None:
    """Print a line, whatever the locale."""
    sys.stdout.buffer.write(line.encode("utf-8", "replace") + b"\n")
    sys.stdout.buffer.flush()


COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__: command for command in (copy, compare, prepare, fold, entries, quick)
}


def main(words: list[str]) -> int:
    """Run one command; a failure is one line on standard output and the exit status."""
    signal.alarm(LONGEST_SECONDS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        COMMANDS[words[0]](*words[1:])
    except DatabaseDamaged as error:
        return failed(DAMAGED, f"the database is damaged: {error}")
    except sqlite3.Error as error:
        # Only the base class means a damaged file: its subclasses mean locks, disk errors and SQL errors.
        if type(error) is sqlite3.DatabaseError:
            return failed(DAMAGED, f"the database is damaged: {error}")
        return failed(UNREADABLE, f"the database cannot be read: {error}")
    except (DatabaseRefused, OSError, ValueError, MemoryError, OverflowError) as error:
        return failed(UNREADABLE, f"the database cannot be read: {str(error) or type(error).__name__}")
    return 0


def failed(status: int, message: str) -> int:
    """Print the message and return the status."""
    say(clean(message))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
