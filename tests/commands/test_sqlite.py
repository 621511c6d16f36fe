"""Backups with the real SQLite: whole under writes, refused when damaged or without room, the newest never lost."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import pytest

from fabfile.commands import sqlite
from fabfile.commands.shell import quote, script
from fabfile.model import Application
from tests.commands.running import Programs, sh
from tests.commands.sample import application

DAY = 86_400


@pytest.fixture
def app(tmp_path: Path, programs: Programs) -> Application:
    """An application whose data stands in directories with names in need of quotes."""
    (tmp_path / "the data's").mkdir()
    programs.add("podman", 'shift; exec "$@"')
    return application(
        database=f"{tmp_path}/the data's/shop.db",
        database_backups=f"{tmp_path}/the backup's [old]",
        config_path=f"{tmp_path}/the config",
    )


def fill(path: str, rows: int = 2000) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table item (n integer primary key, text)")
        database.executemany("insert into item values (?, ?)", ((n, "x" * 500) for n in range(rows)))
        database.commit()


def back_up(app: Application, programs: Programs, release: str = "r1") -> subprocess.CompletedProcess[str]:
    return sh(script(sqlite.backup(app, release)), path=programs.path)


def copy(app: Application, release: str = "r1") -> Path:
    return Path(app.database_backups, f"shop-{release}.db")


def rows(path: Path) -> tuple[str, int]:
    with closing(sqlite3.connect(path)) as database:
        verdict = database.execute("pragma integrity_check").fetchone()[0]
        return verdict, database.execute("select count(*) from item").fetchone()[0]


def test_backup_database_is_copied_whole_for_the_owner_alone(app: Application, programs: Programs) -> None:
    fill(app.database)

    done = back_up(app, programs)

    assert (done.returncode, rows(copy(app))) == (0, ("ok", 2000))
    assert copy(app).stat().st_mode & 0o077 == 0
    assert f"in {copy(app)}" in done.stdout


def test_backup_under_concurrent_writes_is_whole(app: Application, programs: Programs) -> None:
    fill(app.database)
    ended, writing = threading.Event(), threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(app.database, timeout=20)) as database:
            while not ended.is_set():
                database.execute("insert into item (text) values (?)", ("y" * 500,))
                database.commit()
                writing.set()

    writer = threading.Thread(target=write)
    writer.start()
    writing.wait(20)
    done = back_up(app, programs)
    ended.set()
    writer.join(20)

    verdict, count = rows(copy(app))
    assert (done.returncode, verdict) == (0, "ok")
    assert 2000 < count <= rows(Path(app.database))[1]


def test_backup_repeated_for_one_release_replaces_its_own_copy(app: Application, programs: Programs) -> None:
    fill(app.database)

    assert [back_up(app, programs).returncode for _ in range(2)] == [0, 0]
    assert [path.name for path in Path(app.database_backups).glob("*.db*")] == ["shop-r1.db"]


def test_backup_missing_database_is_said_and_makes_no_empty_copy(app: Application, programs: Programs) -> None:
    done = back_up(app, programs)

    assert (done.returncode, "database: none yet" in done.stdout) == (0, True)
    assert (copy(app).exists(), Path(app.database).exists()) == (False, False)


def test_backup_damaged_database_fails_and_leaves_no_copy(app: Application, programs: Programs) -> None:
    fill(app.database)
    with Path(app.database).open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(200_000))

    done = back_up(app, programs)

    assert done.returncode != 0
    assert not copy(app).exists()


def test_backup_copy_that_fails_its_check_is_refused(app: Application, programs: Programs) -> None:
    fill(app.database)
    programs.add(
        "sqlite3", 'case "$*" in *integrity_check*) echo "row 3 missing"; exit 0 ;; esac; exec /usr/bin/sqlite3 "$@"'
    )

    done = back_up(app, programs)

    assert (done.returncode, "the backup of the database is damaged: row 3 missing" in done.stdout) == (1, True)
    assert not copy(app).exists()


def test_backup_without_room_fails_and_copies_nothing(app: Application, programs: Programs) -> None:
    fill(app.database)
    programs.add("df", "printf 'head\\nfs 100000 99000 1000 99%% /\\n'")

    done = back_up(app, programs)

    assert (done.returncode, "no room for a backup" in done.stdout) == (1, True)
    assert not list(Path(app.database_backups).iterdir())


def test_backup_configuration_is_kept_beside_the_database(app: Application, programs: Programs) -> None:
    Path(app.config_path).mkdir()
    Path(app.config_path, "settings.yaml").write_text("a: 1")

    back_up(app, programs)

    archive = Path(app.database_backups, "shop-r1.config.tar.gz")
    listed = sh(f"tar -tzf {quote(str(archive))}").stdout
    assert "the config/settings.yaml" in listed


def test_backup_application_without_a_database_keeps_its_configuration_alone(
    app: Application, programs: Programs, tmp_path: Path
) -> None:
    from dataclasses import replace

    (tmp_path / "the config").mkdir()

    back_up(replace(app, database=""), programs)

    assert [path.name for path in Path(app.database_backups).iterdir()] == ["shop-r1.config.tar.gz"]


def aged(app: Application, name: str, days: float) -> Path:
    path = Path(app.database_backups, name)
    path.parent.mkdir(exist_ok=True)
    path.touch()
    when = path.stat().st_mtime - days * DAY
    os.utime(path, (when, when))
    return path


def test_prune_backups_old_ones_go_and_recent_ones_stay(app: Application) -> None:
    for name, days in (("shop-2026a.db", 90), ("shop-2026b.db", 40), ("shop-2026c.db", 10), ("shop-2026d.db", 0)):
        aged(app, name, days)

    sh(script(sqlite.prune_backups(app)))

    assert sorted(path.name for path in Path(app.database_backups).iterdir()) == ["shop-2026c.db", "shop-2026d.db"]


def test_prune_backups_newest_of_a_kind_stays_however_old(app: Application) -> None:
    for name, days in (
        ("shop-2026a.db", 90),
        ("shop-2026b.db", 400),
        ("shop-2026a.config.tar.gz", 80),
        ("shop-2026b.config.tar.gz", 70),
    ):
        aged(app, name, days)

    done = sh(script(sqlite.prune_backups(app)))

    assert done.returncode == 0
    assert sorted(path.name for path in Path(app.database_backups).iterdir()) == [
        "shop-2026a.db",
        "shop-2026b.config.tar.gz",
    ]


@pytest.mark.parametrize("name", ["other-a.db", "shop-2026a.txt", "shop.db"])
def test_prune_backups_what_is_not_ours_stays(name: str, app: Application) -> None:
    aged(app, "shop-2026new.db", 0)
    foreign = aged(app, name, 400)

    sh(script(sqlite.prune_backups(app)))

    assert foreign.exists()


def test_prune_backups_without_a_directory_is_no_error(app: Application) -> None:
    assert sh(script(sqlite.prune_backups(app), "echo on")).stdout == "on\n"
