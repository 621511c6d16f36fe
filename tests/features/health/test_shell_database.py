"""The health script's database checks, run for real: an intact, damaged, missing, locked or hanging database."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import DatabaseServer
from tests.support.health_site import Site, check, failed


def damage(path: str) -> None:
    """Overwrite pages in the middle: the database still opens, but fails its integrity check."""
    with Path(path).open("r+b") as file:
        file.seek(40_000)
        file.write(os.urandom(80_000))


def test_check_damaged_database_opens_and_fails_the_integrity_check(site: Site) -> None:
    damage(site.app.database)

    report = site.check()

    assert check(report, "database").ok
    assert not check(report, "integrity").ok


@pytest.mark.parametrize("content", [b"garbage " * 4000, os.urandom(65_536)])
def test_check_file_that_is_no_database_fails(content: bytes, site: Site) -> None:
    Path(site.app.database).write_bytes(content)

    report = site.check()

    assert {"database", "integrity"} <= failed(report)
    assert "not a database" in check(report, "database").detail


def test_check_missing_database_fails_and_is_not_created(site: Site) -> None:
    Path(site.app.database).unlink()

    report = site.check()

    assert not check(report, "database").ok
    assert not Path(site.app.database).exists()


@contextmanager
def locked(path: str, seconds: float) -> Iterator[None]:
    """Hold an exclusive lock on the database for so many seconds, as each commit does for a moment."""
    acquired, ended = threading.Event(), threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("begin exclusive")
            acquired.set()
            ended.wait(seconds)
            database.execute("rollback")

    thread = threading.Thread(target=write)
    thread.start()
    acquired.wait(10)
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_check_waits_for_a_locked_database(site: Site) -> None:
    with locked(site.app.database, 1):
        report = site.check()

    assert (check(report, "database").ok, check(report, "integrity").ok) == (True, True)


def test_check_database_that_stays_locked_fails(site: Site) -> None:
    (site.home / "lock/integrity").write_text("ok \n")
    with locked(site.app.database, 60):
        report = site.check()

    assert "locked" in check(report, "database").detail
    assert not check(report, "database").ok


def test_check_database_that_never_answers_times_out(site: Site) -> None:
    site.programs.add("python3", "exec sleep 30")
    (site.home / "lock/integrity").write_text("ok \n")

    report = site.check(seconds=0.2)

    assert check(report, "database").detail == "no answer within 5 s"
    assert check(report, "integrity").ok


def test_check_database_in_wal_mode_with_a_writer_is_healthy(site: Site) -> None:
    with closing(sqlite3.connect(site.app.database)) as database:
        database.execute("pragma journal_mode=wal")
        database.execute("insert into item values (9999, 'x')")
        report = site.check()

    assert (check(report, "database").ok, check(report, "integrity").ok) == (True, True)


def test_check_runs_the_integrity_check_once_a_day(site: Site) -> None:
    stamp = site.home / "lock/integrity"
    site.check()
    damage(site.app.database)
    assert check(site.check(), "integrity").ok

    os.utime(stamp, (time.time() - 25 * 3600,) * 2)

    assert not check(site.check(), "integrity").ok


def test_check_repaired_database_is_healthy_at_the_next_check(site: Site) -> None:
    intact = Path(site.app.database).read_bytes()
    damage(site.app.database)
    assert not check(site.check(), "integrity").ok

    Path(site.app.database).write_bytes(intact)

    assert check(site.check(), "integrity").detail == "ok"


def test_check_continues_when_the_integrity_result_cannot_be_stored(site: Site) -> None:
    (site.home / "lock/integrity").mkdir()
    os.utime(site.home / "lock/integrity", (0, 0))
    with site.serve_except():
        report = site.check()

    assert failed(report) == set()


def test_check_database_server_that_never_answers_times_out(site: Site) -> None:
    site.programs.add("psql", "exec sleep 30")
    served = replace(site.app, database="", database_server=DatabaseServer("postgresql://ark@127.0.0.1/ark"))

    report = site.check(served, seconds=0.2)

    assert (check(report, "database").ok, check(report, "database").detail) == (False, "no answer within 5 s")
