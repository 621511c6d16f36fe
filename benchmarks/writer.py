"""The writer whose commits the benchmark of backups measures. It runs on the lab host: standard library only.

`fill PATH MODE MEGABYTES` makes a database; `write PATH MARKER` commits 50 times a second until the marker is gone and
prints a line `SECONDS-SINCE-EPOCH COMMIT-SECONDS` for each commit.
"""

import os
import sqlite3
import sys
import time
from pathlib import Path

COMMITS_A_SECOND = 50
ROW_BYTES = 4000


def fill(path: str, mode: str, megabytes: str) -> None:
    """Create a database with this journal mode and size, and replace an existing one."""
    for ending in ("", "-wal", "-shm", "-journal"):
        Path(path + ending).unlink(missing_ok=True)
    database = sqlite3.connect(path)
    database.execute(f"pragma journal_mode={mode}")
    database.execute("create table item (n integer primary key, content blob)")
    rows = int(megabytes) * 1_000_000 // ROW_BYTES
    database.executemany("insert into item (content) values (?)", ((os.urandom(ROW_BYTES),) for _ in range(rows)))
    database.commit()
    database.close()


def write(path: str, marker: str) -> None:
    """Commit at a fixed rate. Delayed commits are not made up."""
    database = sqlite3.connect(path, timeout=120, isolation_level=None)
    database.execute("pragma synchronous=full")
    while Path(marker).exists():
        began = time.time()
        database.execute("insert into item (content) values (?)", (os.urandom(500),))
        took = time.time() - began
        print(f"{began:.3f} {took:.5f}")
        time.sleep(max(0.0, 1 / COMMITS_A_SECOND - took))


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(*sys.argv[2:])
    else:
        write(*sys.argv[2:])
