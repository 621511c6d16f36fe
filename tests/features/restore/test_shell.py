"""Verification, restore and undo with the real SQLite and rsync."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Application
from rolling_upgrade.engine.shell import Script, script
from rolling_upgrade.features.backup import shell as backup
from rolling_upgrade.features.backup.manifest import Backup, Verdict
from rolling_upgrade.features.backup.shell import uploads_path
from rolling_upgrade.features.restore import shell as restore
from tests.features.backup.test_shell import ID, app, back_up, files, fill, listed, place, rows
from tests.support.shell import Programs, moved, sh

__all__ = ["app"]

RELEASE = "20261124T000000Z-aaaaaa"
RunContext = Callable[[str | Script], subprocess.CompletedProcess[str]]


@pytest.fixture
def run(app: Application, programs: Programs) -> RunContext:
    home = Path(app.database_backups).parent / "home"
    return lambda text: sh(moved(script(text), app, home), path=programs.path)


@pytest.fixture
def taken(app: Application, programs: Programs) -> Backup:
    """A backup of 2000 rows and two files."""
    fill(app.database)
    Path(app.uploads, "sub dir").mkdir(parents=True)
    Path(app.uploads, "one").write_text("1")
    Path(app.uploads, "sub dir", "t\nwo").write_text("22")
    assert back_up(app, programs).returncode == 0
    return listed(app)[ID]


def test_verify_intact_backup_writes_good_verdict_and_deletes_the_scratch_directory(
    app: Application, taken: Backup, run: RunContext
) -> None:
    done = run(backup.verify(app, taken))

    assert (done.returncode, "2000 rows, 2 uploaded files" in done.stdout) == (0, True), done
    assert listed(app)[ID].verdict is Verdict.GOOD
    assert [path.name for path in Path(app.database_backups).iterdir()] == [f"shop-{ID}"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["database.db", "rows", "uploads.sums"])
def test_verify_with_changed_bit_writes_damaged_verdict(
    name: str, app: Application, taken: Backup, run: RunContext
) -> None:
    flip(place(app) / name)

    done = run(backup.verify(app, taken))

    assert (done.returncode, f"damaged: {name}" in done.stdout) == (backup.DAMAGED_STATUS, True), done
    assert listed(app)[ID].verdict is Verdict.DAMAGED


@pytest.mark.parametrize("damage", ["one", "sub dir/t\nwo", "gone", "more"])
def test_verify_with_different_uploads_reports_damage(
    damage: str, app: Application, taken: Backup, run: RunContext
) -> None:
    if damage == "gone":
        (files(app) / "one").unlink()
    else:
        (files(app) / damage).write_text("another")

    assert run(backup.verify(app, taken)).returncode == backup.DAMAGED_STATUS


def test_verify_with_missing_rows_reports_damage(
    app: Application,
    taken: Backup,
    run: RunContext,
) -> None:
    with closing(sqlite3.connect(place(app) / "database.db")) as database:
        database.execute("delete from item where n < 5")
        database.commit()
    path = place(app) / "database.db"
    digest = sh(f"sha256sum < '{str(path).replace(chr(39), chr(39) + chr(92) + chr(39) * 2)}'").stdout[:64]
    same = tuple(
        replace(one, sha256=digest, bytes=path.stat().st_size) if one.path == "database.db" else one
        for one in taken.files
    )

    done = run(backup.verify(app, replace(taken, files=same)))

    assert (done.returncode, "the row counts differ" in done.stdout) == (backup.DAMAGED_STATUS, True), done


def test_check_without_disk_space_fails_without_reporting_damage(
    app: Application,
    taken: Backup,
    run: RunContext,
    programs: Programs,
) -> None:
    programs.add("df", "printf 'head\\nfs 100000 99000 1000 99%% /\\n'")

    done = run(backup.check(app, taken, database=True, files=True))

    assert (done.returncode, "not enough disk space for the restore" in done.stdout) == (1, True)
    assert listed(app)[ID].verdict is Verdict.UNVERIFIED


def change(app: Application) -> None:
    """Let the application write after the backup, and leave a journal as after a kill."""
    with closing(sqlite3.connect(app.database)) as database:
        database.execute("insert into item values (5000, 'late')")
        database.commit()
        Path(f"{app.database}-wal.kept").write_bytes(Path(f"{app.database}-wal").read_bytes())
    Path(f"{app.database}-wal.kept").rename(f"{app.database}-wal")
    Path(app.uploads, "one").write_text("changed")
    Path(app.uploads, "late").write_text("late")


def uploaded(app: Application) -> dict[str, str]:
    root = Path(app.uploads)
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_restore_database_replaces_it_and_removes_a_stale_journal(
    app: Application,
    taken: Backup,
    run: RunContext,
) -> None:
    change(app)
    Path(app.database).chmod(0o640)

    done = run(restore.restore_database(app, taken, RELEASE))

    assert (done.returncode, rows(Path(app.database))) == (0, ("ok", 2000)), done
    assert Path(app.database).stat().st_mode & 0o777 == 0o640
    with closing(sqlite3.connect(app.database)) as database:
        assert database.execute("pragma journal_mode").fetchone() == ("wal",)


def test_undo_database_restores_rows_and_journal(app: Application, taken: Backup, run: RunContext) -> None:
    change(app)
    run(restore.restore_database(app, taken, RELEASE))

    done = [run(restore.undo_database(app, taken, RELEASE)) for _ in range(2)]

    assert ([one.returncode for one in done], rows(Path(app.database))) == ([0, 0], ("ok", 2001)), done
    assert {path.name for path in Path(app.database).parent.iterdir()} <= {"shop.db", "shop.db-wal", "shop.db-shm"}


@pytest.mark.parametrize("linked", [[], ["-wal"], ["-wal", ""]])
def test_undo_database_after_an_interrupted_restore_restores_it(
    linked: list[str],
    app: Application,
    taken: Backup,
    run: RunContext,
) -> None:
    change(app)
    aside = Path(app.database).parent / f".before-{RELEASE}"
    aside.mkdir()
    for ending in linked:
        (aside / f"shop.db{ending}").hardlink_to(app.database + ending)

    done = run(restore.undo_database(app, taken, RELEASE))

    assert (done.returncode, rows(Path(app.database))) == (0, ("ok", 2001)), done


def test_restore_database_repeated_keeps_the_former_database(app: Application, taken: Backup, run: RunContext) -> None:
    change(app)

    for _ in range(2):
        assert run(restore.restore_database(app, taken, RELEASE)).returncode == 0

    run(restore.undo_database(app, taken, RELEASE))
    assert rows(Path(app.database)) == ("ok", 2001)


def test_restore_database_while_a_container_mounts_it_is_refused(
    app: Application,
    taken: Backup,
    run: RunContext,
    programs: Programs,
    tmp_path: Path,
) -> None:
    change(app)
    mounted = replace(app, database=f"{tmp_path}/data/shop.db")
    programs.add(
        "podman", f'case $1 in ps) echo id ;; container) echo "shop-backend-blue shop {tmp_path}/data" ;; esac'
    )

    done = run(restore.restore_database(mounted, taken, RELEASE))

    assert (done.returncode, "containers that mount the data still run" in done.stdout) == (1, True), done


def test_restore_uploads_replaces_every_file(app: Application, taken: Backup, run: RunContext) -> None:
    change(app)

    done = run(restore.restore_uploads(app, taken, RELEASE))
    run(restore.delete_former_data(app))

    assert (done.returncode, uploaded(app)) == (0, {"one": "1", "sub dir/t\nwo": "22"}), done
    assert (files(app) / "one").read_text() == "1"


def test_restore_uploads_shares_no_file_with_the_backup(app: Application, taken: Backup, run: RunContext) -> None:
    change(app)
    run(restore.restore_uploads(app, taken, RELEASE))

    with Path(app.uploads, "one").open("a") as file:
        file.write("more")

    assert Path(uploads_path(app, ID), "files/one").read_text() == "1"


def test_undo_uploads_restores_every_file(app: Application, taken: Backup, run: RunContext) -> None:
    change(app)
    before = uploaded(app)
    run(restore.restore_uploads(app, taken, RELEASE))

    done = [run(restore.undo_uploads(app, RELEASE)) for _ in range(2)]

    assert ([one.returncode for one in done], uploaded(app)) == ([0, 0], before), done


def test_read_malformed_manifest_is_reported(app: Application, taken: Backup) -> None:
    path = place(app) / "manifest.json"
    whole = json.loads(path.read_text())
    changes: tuple[dict[str, object], ...] = (
        {"id": "20200101T000000Z-000000"},
        {"app": "another"},
        {"format": 2},
        {"database": "oracle"},
        {"rows": "many"},
        {"files": [{"path": "../../etc/passwd", "bytes": 1, "sha256": "0" * 64}]},
        {"files": []},
        {"uploads": -1},
    )
    for change_it in changes:
        path.write_text(json.dumps(whole | change_it))
        assert listed(app)[ID].problem, change_it
    path.write_text("{")
    assert listed(app)[ID].problem
    assert taken.problem == ""
