"""Taking and pruning backups with the real SQLite and rsync."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import threading
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Application, Color, HostState, Service
from rolling_upgrade.engine.shell import quote
from rolling_upgrade.features.backup import manifest
from rolling_upgrade.features.backup import shell as backup
from rolling_upgrade.features.backup.manifest import Backup, BackupKind
from tests.support.sample import application, backend, image
from tests.support.shell import Programs, moved, sh
from tests.support.states import container

ID = "20261123T020000Z-abcdef"
LATER = "20261124T020000Z-abcdef"
HOSTILE_NAMES = ("plain", "with space", 'it\'s "quoted"', "line\nbreak", "back\\slash", "-n", "$(touch pwned)", "繁體")


@pytest.fixture
def app(tmp_path: Path, programs: Programs) -> Application:
    """An application with data in directories whose names need quotes, on a host without containers."""
    (tmp_path / "the data's").mkdir()
    (tmp_path / "home/lock").mkdir(parents=True)
    programs.add("podman", 'case $1 in unshare) shift; exec "$@" ;; ps) ;; esac')
    return application(
        database=f"{tmp_path}/the data's/shop.db",
        database_backups=f"{tmp_path}/the backup's [old]",
        uploads=f"{tmp_path}/up loads",
        uploads_backups=f"{tmp_path}/the files's",
        config_path=f"{tmp_path}/the config",
    )


def fill(path: str, rows: int = 2000) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table item (n integer primary key, text)")
        database.execute('create table "it\'s ""odd""\nname" (n)')
        database.executemany("insert into item values (?, ?)", ((n, "x" * 500) for n in range(rows)))
        database.commit()


def back_up(
    app: Application, programs: Programs, id: str = ID, kind: BackupKind = BackupKind.MANUAL
) -> subprocess.CompletedProcess[str]:
    home = Path(app.database_backups).parent / "home"
    return sh(moved(backup.take(app, id, kind), app, home), path=programs.path)


def place(app: Application, id: str = ID) -> Path:
    return Path(backup.backup_path(app, id))


def files(app: Application, id: str = ID) -> Path:
    return Path(backup.uploads_path(app, id), "files")


def listed(app: Application) -> dict[str, Backup]:
    backups = manifest.parse(app, sh(manifest.read_all(app)).stdout).backups
    return {taken.id: taken for taken in backups}


def rows(path: Path) -> tuple[str, int]:
    with closing(sqlite3.connect(path)) as database:
        verdict = database.execute("pragma integrity_check").fetchone()[0]
        return verdict, database.execute("select count(*) from item").fetchone()[0]


def test_take_copies_the_complete_database_readable_only_by_the_owner(app: Application, programs: Programs) -> None:
    fill(app.database)

    done = back_up(app, programs)

    assert (done.returncode, rows(place(app) / "database.db")) == (0, ("ok", 2000)), done
    assert {path.stat().st_mode & 0o077 for path in (place(app), *place(app).iterdir())} == {0}
    assert f"in {place(app)}" in done.stdout


def test_take_under_concurrent_writes_is_consistent(app: Application, programs: Programs) -> None:
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

    verdict, count = rows(place(app) / "database.db")
    assert (done.returncode, verdict) == (0, "ok")
    assert 2000 < count <= rows(Path(app.database))[1]
    assert listed(app)[ID].rows == count


def test_take_manifest_lists_the_content(app: Application, programs: Programs) -> None:
    fill(app.database)
    Path(app.uploads).mkdir()
    Path(app.uploads, "a").write_text("four")

    back_up(app, programs)

    taken = listed(app)[ID]
    assert (taken.kind, taken.app, taken.database, taken.journal_mode) == (BackupKind.MANUAL, "shop", "sqlite", "wal")
    assert (taken.rows, taken.uploads, taken.uploads_bytes, taken.problem) == (2000, 1, 4, "")
    for file in taken.files:
        content = (place(app) / file.path).read_bytes()
        assert (len(content), sh(f"sha256sum < {quote(str(place(app) / file.path))}").stdout[:64]) == (
            file.bytes,
            file.sha256,
        )


def test_take_records_the_running_release(app: Application, programs: Programs, tmp_path: Path) -> None:
    rows = "backend blue r1 r.test/shop/backend:v1 sha256:aa\nbackend green r2 r.test/shop/backend:v2 sha256:bb\n"
    (tmp_path / "listed").write_text(rows)
    programs.add(
        "podman",
        'case $1 in unshare) shift; exec "$@" ;; ps) cat "$here/listed" ;; esac',
    )
    (tmp_path / "home/live").mkdir()
    (tmp_path / "home/live/backend.green").touch()

    back_up(app, programs)

    taken = listed(app)[ID]
    assert (taken.release, taken.services) == ("r2", (("backend", "r.test/shop/backend:v2@sha256:bb"),))


def test_take_of_a_deploy_records_the_observed_release_without_podman(
    app: Application, programs: Programs, tmp_path: Path
) -> None:
    former = container(backend(), Color.BLUE, image=image("backend", "v1"))
    active = container(backend(), Color.GREEN, release="r2\"';$(x)")
    state = HostState("web1", active=(("backend", Color.GREEN),), containers=(former, active))
    text = moved(backup.take(app, ID, BackupKind.DEPLOY, state=state), app, tmp_path / "home")

    done = sh(text, path=programs.path)

    assert (done.returncode, [call for call in programs.calls("podman") if call[1] != "unshare"]) == (0, [])
    taken = listed(app)[ID]
    assert (taken.release, taken.services) == (
        "r2x",
        (("backend", f"{image('backend').reference}@{image('backend').digest}"),),
    )


def test_take_repeated_for_one_run_keeps_the_first(app: Application, programs: Programs) -> None:
    fill(app.database)
    back_up(app, programs)
    before = place(app).stat().st_mtime_ns

    done = back_up(app, programs)

    assert (done.returncode, place(app).stat().st_mtime_ns) == (0, before)


def test_take_without_a_database_reports_it_and_makes_no_empty_copy(app: Application, programs: Programs) -> None:
    done = back_up(app, programs)

    assert (done.returncode, "database: none yet" in done.stdout) == (0, True)
    assert ((place(app) / "database.db").exists(), Path(app.database).exists()) == (False, False)
    assert listed(app)[ID].database == ""


def test_take_of_damaged_database_fails_and_leaves_nothing(app: Application, programs: Programs) -> None:
    fill(app.database)
    with Path(app.database).open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(200_000))

    assert back_up(app, programs).returncode != 0
    assert list(Path(app.database_backups).iterdir()) == []


def test_take_with_damaged_copy_is_refused(app: Application, programs: Programs) -> None:
    fill(app.database)
    with closing(sqlite3.connect(app.database)) as database:
        database.execute("insert into item (n) values (5000)")
        database.execute("pragma writable_schema=on")
        database.execute("update sqlite_master set sql = replace(sql, 'key, text', 'key, text not null')")
        database.commit()

    done = back_up(app, programs)

    assert (done.returncode, "the database is damaged: NULL value in item.text" in done.stdout) == (1, True)
    assert list(Path(app.database_backups).iterdir()) == []


def test_take_without_disk_space_fails_before_it_copies(app: Application, programs: Programs) -> None:
    fill(app.database)
    programs.add("df", "printf 'head\\nfs 100000 99000 1000 99%% /\\n'")
    programs.add("python3")

    done = back_up(app, programs)

    assert (done.returncode, "not enough disk space for a backup" in done.stdout) == (1, True)
    assert list(Path(app.database_backups).iterdir()) == []
    assert programs.calls("python3") == []


def test_take_needs_disk_space_only_for_new_uploads(app: Application, programs: Programs) -> None:
    Path(app.uploads).mkdir()
    Path(app.uploads, "large").touch()
    os.truncate(f"{app.uploads}/large", 60_000 * 1024)
    room = "printf 'head\\nfs 900000 800000 {} 99%% /\\n'"
    programs.add("df", room.format(100_000))
    refused = back_up(app, programs)
    programs.add("df", room.format(200_000))
    back_up(app, programs)
    programs.add("df", room.format(60_000))

    done = back_up(app, programs, LATER)

    assert (refused.returncode, "not enough disk space" in refused.stdout, set(listed(app))) == (
        1,
        True,
        {ID, LATER},
    ), done


def test_take_includes_the_configuration(app: Application, programs: Programs) -> None:
    Path(app.config_path).mkdir()
    Path(app.config_path, "settings.yaml").write_text("a: 1")

    back_up(app, programs)

    listing = sh(f"tar -tzf {quote(str(place(app) / 'configuration.tar.gz'))}").stdout
    assert "the config/settings.yaml" in listing


def test_take_of_a_deploy_omits_the_uploads(app: Application, programs: Programs) -> None:
    Path(app.uploads).mkdir()

    back_up(app, programs, kind=BackupKind.DEPLOY)

    assert listed(app)[ID].uploads is None
    assert not Path(app.uploads_backups).exists()


def test_take_copies_uploads_with_any_name(app: Application, programs: Programs) -> None:
    for name in HOSTILE_NAMES:
        Path(app.uploads, name).mkdir(parents=True)
        Path(app.uploads, name, name).write_text(name)

    done = back_up(app, programs)

    assert {path.name: path.read_text() for path in files(app).glob("*/*")} == {name: name for name in HOSTILE_NAMES}
    check = sh(f"cd {quote(str(files(app)))} && sha256sum --check --quiet {quote(str(place(app) / 'uploads.sums'))}")
    assert (done.returncode, check.returncode, listed(app)[ID].uploads) == (0, 0, len(HOSTILE_NAMES)), check


def test_take_links_unchanged_uploads_and_reuses_their_hashes(app: Application, programs: Programs) -> None:
    for name in HOSTILE_NAMES:
        Path(app.uploads).mkdir(exist_ok=True)
        Path(app.uploads, name).write_text(name)
    back_up(app, programs)
    Path(app.uploads, "new").write_text("new")
    programs.add("sha256sum", 'exec /usr/bin/sha256sum "$@"')

    back_up(app, programs, LATER)

    linked = {path.name for path in files(app, LATER).iterdir() if path.stat().st_nlink == 2}
    assert linked == set(HOSTILE_NAMES)
    assert [call[1:] for call in programs.calls("sha256sum") if len(call) > 1] == [["./new"]]
    first, second = ((place(app, id) / "uploads.sums").read_text().splitlines() for id in (ID, LATER))
    assert set(first) < set(second)
    assert len(second) == len(HOSTILE_NAMES) + 1


def test_take_with_changed_upload_keeps_the_earlier_backup(app: Application, programs: Programs) -> None:
    Path(app.uploads).mkdir()
    Path(app.uploads, "a").write_text("old")
    back_up(app, programs)
    Path(app.uploads, "a").write_text("changed")

    back_up(app, programs, LATER)

    assert [(files(app, id) / "a").read_text() for id in (ID, LATER)] == ["old", "changed"]


def test_take_does_not_link_to_a_damaged_backup(app: Application, programs: Programs) -> None:
    Path(app.uploads).mkdir()
    Path(app.uploads, "a").write_text("good")
    back_up(app, programs)
    (place(app) / "verified").write_text("damaged 1\n")

    back_up(app, programs, LATER)

    assert (files(app, LATER) / "a").stat().st_nlink == 1


def test_take_deletes_leftovers_of_an_interrupted_backup(app: Application, programs: Programs) -> None:
    part = Path(app.database_backups, f".shop-{LATER}.part")
    orphan = Path(app.uploads_backups, f"shop-{LATER}.uploads")
    foreign = Path(app.uploads_backups, f"shop-staging-{LATER}.uploads")
    ancient = Path(app.uploads_backups, "shop-20200101T020000Z-abcdef.uploads")
    Path(app.uploads).mkdir()
    assert back_up(app, programs).returncode == 0
    for path in (part, orphan, foreign, ancient):
        path.mkdir(parents=True)

    back_up(app, programs, "20261125T020000Z-abcdef")

    assert [path.exists() for path in (part, orphan, foreign, ancient)] == [False, False, True, True]


def test_take_with_unmounted_backup_directory_keeps_every_copy_of_the_uploads(
    app: Application, programs: Programs
) -> None:
    Path(app.uploads).mkdir()
    assert back_up(app, programs).returncode == 0
    Path(app.database_backups).rename(f"{app.database_backups}.away")

    assert back_up(app, programs, LATER).returncode == 0

    assert files(app).is_dir()


def test_take_with_database_missing_since_the_last_backup_fails(app: Application, programs: Programs) -> None:
    fill(app.database)
    assert back_up(app, programs).returncode == 0
    Path(app.database).unlink()

    done = back_up(app, programs, LATER)

    assert (done.returncode, "earlier backups have one" in done.stdout, set(listed(app))) == (1, True, {ID}), done


def test_take_while_another_backup_runs_waits_and_then_fails(
    app: Application, programs: Programs, tmp_path: Path
) -> None:
    programs.add("flock", "exit 45")
    fill(app.database)

    done = back_up(app, programs)

    assert (done.returncode, "another backup did not end" in done.stdout) == (45, True)


def test_take_of_a_deploy_does_not_wait(app: Application, programs: Programs) -> None:
    programs.add("flock", "exit 45")
    fill(app.database)

    assert back_up(app, programs, kind=BackupKind.DEPLOY).returncode == 0


def add_backup(app: Application, days: float, kind: BackupKind, *, verified: str = "", **facts: object) -> str:
    """Create a backup of this age and return its id."""
    at = datetime.now(timezone.utc) - timedelta(days=days)
    id = f"{at:%Y%m%dT%H%M%SZ}-abcdef"
    place(app, id).mkdir(parents=True)
    files(app, id).mkdir(parents=True)
    text = json.dumps({"format": 1, "id": id, "kind": kind.value, **facts}, indent=2)
    (place(app, id) / "manifest.json").write_text(text)
    if verified:
        (place(app, id) / "verified").write_text(f"{verified} 1\n")
    return id


def test_prune_keeps_the_newest_backup_of_each_kind(app: Application, programs: Programs) -> None:
    complete = add_backup(app, 60, BackupKind.MANUAL, database="sqlite", uploads=3)
    rows = add_backup(app, 50, BackupKind.RESTORE, database="sqlite", uploads=None)
    nothing = add_backup(app, 40, BackupKind.SCHEDULED, database="", uploads=None)
    good = add_backup(app, 45, BackupKind.DEPLOY, database="sqlite", uploads=None)
    undone = add_backup(app, 35, BackupKind.DEPLOY, database="sqlite", uploads=None)
    add_backup(app, 70, BackupKind.MANUAL, database="sqlite", uploads=3)
    home = Path(app.database_backups).parent / "home"
    home.mkdir(exist_ok=True)
    lines = [{"id": good, "outcome": "good", "action": "deploy"}, {"id": undone, "outcome": "undone"}]
    (home / "releases.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    assert prune(app, programs) == {complete, rows, nothing, good, undone}


def prune(app: Application, programs: Programs) -> set[str]:
    home = Path(app.database_backups).parent / "home"
    done = sh(f"set -eu\n{moved(backup.prune(app), app, home)}", path=programs.path)
    assert done.returncode == 0, done
    left = {path.name.removeprefix("shop-") for path in Path(app.database_backups).iterdir()}
    assert left == {path.name.removeprefix("shop-")[:-8] for path in Path(app.uploads_backups).iterdir()}
    return left


def test_prune_deletes_only_expired_backups(app: Application, programs: Programs) -> None:
    old = [add_backup(app, days, BackupKind.MANUAL) for days in (90, 31)]
    recent = {add_backup(app, days, BackupKind.SCHEDULED) for days in (29, 0)}

    assert prune(app, programs) == recent
    assert old


def test_prune_keeps_the_newest_intact_backups_of_any_age(app: Application, programs: Programs) -> None:
    add_backup(app, 400, BackupKind.MANUAL)
    add_backup(app, 300, BackupKind.DEPLOY)
    kept = {add_backup(app, 90, BackupKind.MANUAL), add_backup(app, 80, BackupKind.DEPLOY)}
    add_backup(app, 70, BackupKind.SCHEDULED, verified="damaged")

    assert prune(app, programs) == kept


def test_prune_keeps_files_of_others(app: Application, programs: Programs) -> None:
    add_backup(app, 0, BackupKind.MANUAL)
    other = Path(app.database_backups, "shop-staging-20200101T000000Z-abcdef")
    other.mkdir()

    sh(moved(backup.prune(app), app, Path(app.database_backups).parent / "home"), path=programs.path)

    assert other.exists()


def test_prune_without_a_backup_directory_succeeds(app: Application) -> None:
    assert sh(f"set -eu\n{backup.prune(app)}\necho on").stdout == "on\n"


def test_scheduled_program_holds_no_secret(app: Application) -> None:
    from rolling_upgrade.engine.model import DatabaseServer

    secret = replace(app, database_server=DatabaseServer("postgresql://ark@db/ark", "open-sesame"))
    keys: tuple[Service, ...] = secret.services

    text = backup.scheduled(secret)

    assert "open-sesame" not in text
    assert not any(value in text for service in keys for key, value in service.env if key == "SECRET_KEY")


def test_scheduled_program_backs_up_and_prunes(app: Application, programs: Programs) -> None:
    fill(app.database)
    Path(app.uploads).mkdir()
    add_backup(app, 90, BackupKind.SCHEDULED)
    home = Path(app.database_backups).parent / "home"
    text = moved(backup.scheduled(app), app, home).replace(
        "PATH=/usr/local/sbin", f"PATH={programs.directory}:/usr/local/sbin"
    )

    done = sh(text)

    backups = listed(app)
    assert (done.returncode, [taken.kind for taken in backups.values()]) == (0, [BackupKind.SCHEDULED]), done
    assert next(iter(backups.values())).rows == 2000
