"""The look at a host's database, run for real: whole, damaged, missing, under a writer, never answering."""

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
from tests.support.site import Site, check, failed


def damage(path: str) -> None:
    """Overwrite pages in the middle: it opens, and is not whole."""
    with Path(path).open("r+b") as file:
        file.seek(40_000)
        file.write(os.urandom(80_000))


def test_check_database_that_is_damaged_opens_and_is_not_whole(site: Site) -> None:
    damage(site.app.database)

    report = site.look()

    assert check(report, "database").ok
    assert not check(report, "integrity").ok


@pytest.mark.parametrize("content", [b"garbage " * 4000, os.urandom(65_536)])
def test_check_database_that_is_none_is_told(content: bytes, site: Site) -> None:
    Path(site.app.database).write_bytes(content)

    report = site.look()

    assert {"database", "integrity"} <= failed(report)
    assert "not a database" in check(report, "database").detail


def test_check_database_that_is_missing_is_told_and_not_made(site: Site) -> None:
    Path(site.app.database).unlink()

    report = site.look()

    assert not check(report, "database").ok
    assert not Path(site.app.database).exists()


@contextmanager
def locked(path: str, seconds: float) -> Iterator[None]:
    """A writer that keeps everybody out for so long, as each commit does for a moment."""
    begun, ended = threading.Event(), threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("begin exclusive")
            begun.set()
            ended.wait(seconds)
            database.execute("rollback")

    thread = threading.Thread(target=write)
    thread.start()
    begun.wait(10)
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_check_database_under_a_writer_is_waited_for(site: Site) -> None:
    with locked(site.app.database, 1):
        report = site.look()

    assert (check(report, "database").ok, check(report, "integrity").ok) == (True, True)


def test_check_database_that_stays_locked_is_told(site: Site) -> None:
    (site.home / "lock/integrity").write_text("ok \n")
    with locked(site.app.database, 60):
        report = site.look()

    assert "locked" in check(report, "database").detail
    assert not check(report, "database").ok


def test_check_database_that_never_answers_is_given_up(site: Site) -> None:
    site.programs.add("python3", "exec sleep 30")
    (site.home / "lock/integrity").write_text("ok \n")

    report = site.look(seconds=0.2)

    assert check(report, "database").detail == "no answer within 5 s"
    assert check(report, "integrity").ok


def test_check_database_in_wal_mode_with_a_writer_is_well(site: Site) -> None:
    with closing(sqlite3.connect(site.app.database)) as database:
        database.execute("pragma journal_mode=wal")
        database.execute("insert into item values (9999, 'x')")
        report = site.look()

    assert (check(report, "database").ok, check(report, "integrity").ok) == (True, True)


def test_check_database_is_read_through_once_a_day(site: Site) -> None:
    stamp = site.home / "lock/integrity"
    site.look()
    damage(site.app.database)
    assert check(site.look(), "integrity").ok

    os.utime(stamp, (time.time() - 25 * 3600,) * 2)

    assert not check(site.look(), "integrity").ok


def test_check_database_that_was_mended_is_well_at_the_next_look(site: Site) -> None:
    whole = Path(site.app.database).read_bytes()
    damage(site.app.database)
    assert not check(site.look(), "integrity").ok

    Path(site.app.database).write_bytes(whole)

    assert check(site.look(), "integrity").detail == "ok"


def test_check_verdict_that_cannot_be_kept_ends_nothing(site: Site) -> None:
    (site.home / "lock/integrity").mkdir()
    os.utime(site.home / "lock/integrity", (0, 0))
    with site.served():
        report = site.look()

    assert failed(report) == set()


def test_check_database_server_that_never_answers_is_given_up(site: Site) -> None:
    site.programs.add("psql", "exec sleep 30")
    served = replace(site.app, database="", database_server=DatabaseServer("postgresql://ark@127.0.0.1/ark"))

    report = site.look(served, seconds=0.2)

    assert (check(report, "database").ok, check(report, "database").detail) == (False, "no answer within 5 s")
