"""Backup, restore and health checks of SQLite files that a hostile container wrote."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade import rendering
from rolling_upgrade.engine import sqlite, sqlite_program
from rolling_upgrade.engine.model import Application
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.features.backup import shell as backup
from rolling_upgrade.features.backup.manifest import Backup, BackupKind, Verdict
from rolling_upgrade.features.restore import shell as restore
from tests.features.backup.test_shell import ID, app, back_up, fill, listed, place, rows
from tests.features.restore.test_shell import RELEASE, run
from tests.support import hostile_databases as hostile
from tests.support.health_site import Site, check, failed
from tests.support.shell import Programs

__all__ = ["app", "run"]

RunContext = Callable[[str | Script], subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to an empty directory, in which an injected command would leave a file."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """The application of the health checks, separate from the application of the backups."""
    (tmp_path / "site").mkdir()
    return Site(tmp_path / "site", Programs(tmp_path / "site/bin"))


def assert_nothing_ran(root: Path) -> None:
    assert [str(path) for path in root.rglob("pwned*")] == []


def backed_up_and_verified(app: Application, programs: Programs, run: RunContext, root: Path) -> Backup:
    """Take and verify a backup, and check that no injected command ran. Return the backup."""
    done = back_up(app, programs)
    assert done.returncode == 0, done
    (taken,) = listed(app).values()
    verified = run(backup.verify(app, taken))
    assert verified.returncode == 0, verified
    assert listed(app)[ID].verdict is Verdict.GOOD
    assert_nothing_ran(root)
    assert "\x1b" not in done.stdout + done.stderr + verified.stdout + verified.stderr
    return taken


@pytest.mark.parametrize("name", hostile.NAMES, ids=lambda name: ascii(name)[:40])
def test_hostile_name_is_copied_counted_and_verified(
    name: str, app: Application, programs: Programs, run: RunContext, tmp_path: Path
) -> None:
    hostile.write(app.database, hostile.table_named(name))

    taken = backed_up_and_verified(app, programs, run, tmp_path)

    assert taken.rows == 23
    assert f"3 {name.encode().hex().upper()}" in (place(app) / "rows").read_text().splitlines()


@pytest.mark.parametrize("name", hostile.SCHEMAS)
def test_hostile_schema_is_copied_and_verified_or_refused_as_damaged(
    name: str, app: Application, programs: Programs, run: RunContext, tmp_path: Path
) -> None:
    """A schema that SQLite cannot read counts as damage; any other schema is backed up."""
    hostile.write(app.database, hostile.SCHEMAS[name])
    with closing(sqlite3.connect(app.database)) as database:
        try:
            readable = database.execute("select count(*) from item").fetchone() == (20,)
        except (sqlite3.Error, UnicodeDecodeError):
            readable = False

    if readable:
        assert backed_up_and_verified(app, programs, run, tmp_path).rows >= 20
    else:
        done = back_up(app, programs)
        assert (done.returncode, "the database " in done.stdout) == (1, True), done
        assert_nothing_ran(tmp_path)


def test_hostile_schemas_are_mostly_readable_by_sqlite(tmp_path: Path) -> None:
    readable = 0
    for number, make in enumerate(hostile.SCHEMAS.values()):
        hostile.write(str(tmp_path / f"{number}.db"), make)
        with closing(sqlite3.connect(tmp_path / f"{number}.db")) as database:
            try:
                readable += database.execute("select count(*) from item").fetchone() == (20,)
            except (sqlite3.Error, UnicodeDecodeError):
                continue

    assert readable >= 18


@pytest.mark.parametrize("name", ["a NUL cuts the quote", "an endless view", "views that double"])
def test_hostile_schema_is_checked_without_an_error(name: str, site: Site, tmp_path: Path) -> None:
    Path(site.app.database).unlink()
    hostile.write(site.app.database, hostile.SCHEMAS[name])

    report = site.check()

    assert {"database", "integrity"} & failed(report) == set(), check(report, "integrity")
    assert_nothing_ran(tmp_path)


def test_table_with_an_invalid_name_is_reported_and_not_counted(
    app: Application, programs: Programs, run: RunContext, tmp_path: Path
) -> None:
    with closing(hostile.application_table(app.database)) as database:
        hostile.not_utf8(database)

    done = back_up(app, programs)

    assert (done.returncode, "not counted: a table whose name cannot be used in SQL" in done.stdout) == (0, True), done
    assert (place(app) / "rows").read_text().splitlines() == ["20 6974656D", "- FFFE"]
    assert run(backup.verify(app, listed(app)[ID])).returncode == 0


def tool(*words: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """Run the program as a host does."""
    return subprocess.run(
        [python, "-I", "-", *words], input=sqlite.source(), capture_output=True, text=True, timeout=60, check=False
    )


def test_exponential_page_tree_is_stopped_within_the_size_limit(app: Application, programs: Programs) -> None:
    hostile.tree_that_explodes(app.database)
    size = Path(app.database).stat().st_size

    done = tool("copy", app.database, "database.db", "rows")

    assert done.returncode in (sqlite_program.DAMAGED, sqlite_program.UNREADABLE), done
    assert max(path.stat().st_size for path in Path().iterdir()) <= 2 * size + sqlite_program.MARGIN_BYTES


@pytest.mark.parametrize("ending", ["", "-journal", "-wal", "-shm"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "FIFO", "directory"])
def test_special_file_is_refused_immediately(
    kind: str, ending: str, app: Application, programs: Programs, site: Site, tmp_path: Path
) -> None:
    """Following a link would copy another file of the deploy user; opening a FIFO would block."""
    secret = tmp_path / "secret.db"
    with closing(hostile.application_table(str(secret))):
        pass
    before = secret.read_bytes()
    for path in (app.database, site.app.database):
        Path(path).unlink(missing_ok=True)
        with closing(hostile.application_table(path)) as database:
            database.execute("pragma journal_mode=wal")
        place_beside = Path(path + ending)
        place_beside.unlink(missing_ok=True)
        if kind == "FIFO":
            os.mkfifo(place_beside)
        elif kind == "directory":
            place_beside.mkdir()
        else:
            place_beside.symlink_to(secret if kind == "link" else tmp_path / "nothing")

    done = back_up(app, programs)
    report = site.check()

    assert (done.returncode, "the database cannot be read" in done.stdout) == (1, True), done
    assert list(Path(app.database_backups).iterdir()) == []
    assert not check(report, "database").ok
    assert (secret.read_bytes(), (tmp_path / "nothing").exists()) == (before, False)


def test_file_that_is_replaced_by_a_link_while_it_is_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, secret = tmp_path / "shop.db", tmp_path / "secret.db"
    for one in (path, secret):
        hostile.application_table(str(one)).close()
    connect = sqlite3.connect

    def replaced(*words: object, **options: object) -> sqlite3.Connection:
        path.unlink()
        path.symlink_to(secret)
        return connect(*words, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(sqlite3, "connect", replaced)
    monkeypatch.setattr(sqlite_program, "limit", lambda kind, most: None)

    with pytest.raises(sqlite_program.DatabaseRefused, match="was replaced while it was opened"):
        sqlite_program.connect(str(path))


def test_rollback_of_a_killed_writer_happens_only_in_the_copy(
    app: Application, programs: Programs, run: RunContext, tmp_path: Path
) -> None:
    hostile.with_hot_journal(app.database)
    before = {path.name: path.read_bytes() for path in Path(app.database).parent.iterdir()}

    taken = backed_up_and_verified(app, programs, run, tmp_path)

    with closing(sqlite3.connect(place(app) / "database.db")) as database:
        assert database.execute("select count(*) from item where text like 'changed%'").fetchone() == (0,)
    assert taken.rows == 2000
    assert {path.name for path in place(app).iterdir()} == {"database.db", "rows", "manifest.json", "verified"}
    assert {path.name: path.read_bytes() for path in Path(app.database).parent.iterdir()} == before


@pytest.mark.parametrize("action", ["backup", "restore", "health"])
def test_journal_that_names_a_file_does_not_delete_it(
    action: str, app: Application, programs: Programs, run: RunContext, site: Site, tmp_path: Path
) -> None:
    """After a commit across several files, SQLite deletes whichever file the journal names."""
    victim = tmp_path / "authorized_keys"
    victim.write_text("ssh-ed25519 AAAA")
    if action == "restore":
        fill(app.database)
        assert back_up(app, programs).returncode == 0
        (taken,) = listed(app).values()
        Path(app.database).unlink()
    path = site.app.database if action == "health" else app.database
    Path(path).unlink(missing_ok=True)
    hostile.with_hot_journal(path, str(victim))

    if action == "backup":
        done = back_up(app, programs)
        assert (done.returncode, "belongs to a commit across several files" in done.stdout) == (1, True), done
    elif action == "restore":
        assert run(restore.restore_database(app, taken, RELEASE)).returncode == 0
    else:
        assert not check(site.check(), "database").ok

    assert victim.read_text() == "ssh-ed25519 AAAA"


def test_journal_attack_deletes_the_file_when_opened_for_writing(tmp_path: Path) -> None:
    """Proves that the attack of the test above works on SQLite itself."""
    victim = tmp_path / "victim"
    victim.write_text("x")
    hostile.with_hot_journal(str(tmp_path / "shop.db"), str(victim))

    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        database.execute("select count(*) from item").fetchone()

    assert not victim.exists()


def test_error_is_one_short_line_without_control_characters(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    name = "\x1b]0;pwned\x07\n" + "long" * 5000
    with closing(hostile.application_table(str(path))) as database:
        database.execute(f'create table "{name}" (a, b)')
        database.execute(f'insert into "{name}" values (null, 1)')
        hostile.schema(database, 'update sqlite_master set sql = replace(sql, "(a, b)", "(a not null, b)")')

    for command in ("quick", "compare"):
        done = tool(command, str(path), *(["rows"] if command == "compare" else []))
        assert "NULL value in" in done.stdout, done
        assert (len(done.stdout.splitlines()), "\x1b" in done.stdout, len(done.stdout) < 400) == (1, False, True)


@pytest.mark.parametrize(
    "lines", ["20 6974656D\n-1 78\n", "x\n", "20\n", "", "20 6974656D\n20 6974656D\n", "\0\n", "٢٠ 6974656D\n"]
)
def test_malformed_row_counts_are_a_mismatch(lines: str, tmp_path: Path) -> None:
    hostile.application_table(str(tmp_path / "shop.db")).close()
    (tmp_path / "rows").write_text(lines)

    done = tool("compare", str(tmp_path / "shop.db"), str(tmp_path / "rows"))

    assert (done.returncode, "the row counts differ" in done.stdout) == (sqlite_program.DAMAGED, True), done


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
def test_row_counts_of_earlier_versions_are_accepted(
    encoding: str, app: Application, run: RunContext, tmp_path: Path
) -> None:
    """A backup of an earlier version, counted by the sqlite3 program, is still good."""
    path = str(tmp_path / "shop.db")
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"pragma encoding = '{encoding}'")
        for name in ("plain", 'it\'s "odd"', "繁體", "Zebra", "apple"):
            hostile.table_named(name)(database)
        database.execute("create virtual table f using fts5(a)")
        database.execute("create table w (a primary key) without rowid")
        database.commit()
        statements = database.execute(
            "select 'select count(*) || '' ' || hex(name) || ''' from \"' || replace(name, '\"', '\"\"') || '\";'"
            " from sqlite_master where type = 'table' and substr(name, 1, 7) <> 'sqlite_'"
            " and sql not like 'create virtual%' order by name"
        ).fetchall()
        lines = [database.execute(statement).fetchone()[0] for (statement,) in statements]
    (tmp_path / "rows").write_text("".join(f"{line}\n" for line in lines))

    done = tool("compare", path, str(tmp_path / "rows"))

    assert (done.returncode, len(lines) > 8) == (0, True), done


def test_program_has_load_extension_disabled(tmp_path: Path) -> None:
    path = str(tmp_path / "shop.db")
    hostile.application_table(path).close()
    code = sqlite.source().replace(
        'if __name__ == "__main__":',
        "if True:\n    print(connect(sys.argv[1]).execute(\"select load_extension('x')\"))\nif False:",
    )

    done = subprocess.run([sys.executable, "-I", "-", path], input=code, capture_output=True, text=True, check=False)

    assert (done.returncode, "not authorized" in done.stderr) == (1, True), done


def test_program_is_the_same_in_the_watchdogs_archive(tmp_path: Path) -> None:
    (tmp_path / "watchdog.pyz").write_bytes(rendering.engine())
    path = "import sys; sys.path.insert(0, sys.argv[1])"
    code = f"{path}; from rolling_upgrade.engine import sqlite; print(sqlite.source(), end='')"

    words = [sys.executable, "-I", "-c", code, str(tmp_path / "watchdog.pyz")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, Path(sqlite_program.__file__).read_text()), done.stderr


def test_restore_database_replaces_a_link_and_not_its_target(
    app: Application, programs: Programs, run: RunContext, tmp_path: Path
) -> None:
    fill(app.database)
    assert back_up(app, programs).returncode == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Path(app.database).unlink()
    Path(app.database).symlink_to(elsewhere)

    done = run(restore.restore_database(app, listed(app)[ID], RELEASE))

    assert (done.returncode, list(elsewhere.iterdir())) == (0, []), done
    assert (Path(app.database).is_symlink(), Path(app.database).is_file()) == (False, True)


def obstruct(path: Path, kind: str, elsewhere: Path) -> None:
    """Create a directory, a pipe or a link in place of a file."""
    if kind == "directory":
        (path / "full").mkdir(parents=True)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(elsewhere)


@pytest.mark.parametrize("kind", ["directory", "pipe", "link", "dangling link"])
@pytest.mark.parametrize("ending", ["", "-wal", "-shm", "-journal"])
def test_restore_replaces_directories_pipes_and_links_in_place_of_a_file(
    ending: str, kind: str, app: Application, programs: Programs, run: RunContext, tmp_path: Path
) -> None:
    fill(app.database, 10)
    assert back_up(app, programs).returncode == 0
    elsewhere = tmp_path / "elsewhere"
    if kind == "link":
        elsewhere.mkdir()
    for gone in (ending,) if ending else ("", "-wal", "-shm"):
        Path(app.database + gone).unlink(missing_ok=True)
    obstruct(Path(app.database + ending), kind, elsewhere)
    backup = listed(app)[ID]

    for _ in range(2):
        done = run(restore.restore_database(app, backup, RELEASE))
        assert (done.returncode, rows(Path(app.database))) == (0, ("ok", 10)), done
    back = [run(restore.undo_database(app, backup, RELEASE)) for _ in range(2)]

    assert [one.returncode for one in back] == [0, 0], back
    path = Path(app.database + ending)
    was = {"directory": path.is_dir(), "pipe": path.is_fifo()}.get(kind, path.is_symlink())
    assert was, list(path.parent.iterdir())
    assert not elsewhere.exists() or not list(elsewhere.iterdir())


def test_restore_does_not_copy_the_mode_of_a_link_target(
    app: Application, programs: Programs, run: RunContext, tmp_path: Path
) -> None:
    fill(app.database, 10)
    assert back_up(app, programs).returncode == 0
    open_to_all = tmp_path / "open to all"
    open_to_all.touch()
    open_to_all.chmod(0o666)
    Path(app.database).unlink()
    Path(app.database).symlink_to(open_to_all)

    done = run(restore.restore_database(app, listed(app)[ID], RELEASE))

    assert (done.returncode, Path(app.database).stat().st_mode & 0o777) == (0, 0o600), done


def test_restore_uploads_does_not_write_through_links_of_the_container(
    app: Application, programs: Programs, run: RunContext, tmp_path: Path
) -> None:
    """After an interrupted restore, the container knows the directories and can replace them with links."""
    Path(app.uploads).mkdir()
    Path(app.uploads, "one").write_text("1")
    app = replace(app, database="")
    assert back_up(app, programs).returncode == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "profile").write_text("mine")
    aside = Path(app.uploads, f".before-{RELEASE}")
    aside.symlink_to(elsewhere)
    Path(app.uploads, "authorized_keys").write_text("ssh-ed25519 AAAA")

    done = run(restore.restore_uploads(app, listed(app)[ID], RELEASE))

    assert (done.returncode, [path.name for path in elsewhere.iterdir()]) == (0, ["profile"]), done
    subprocess.run(["rm", "-rf", str(aside)], check=True)
    aside.symlink_to(elsewhere)
    back = run(restore.undo_uploads(app, RELEASE))
    assert (back.returncode, "was replaced by a link" in back.stdout) == (1, True), back
    assert (elsewhere / "profile").read_text() == "mine"
    assert not Path(app.uploads, "profile").exists()


def test_restore_uploads_does_not_write_state_through_links(
    app: Application, programs: Programs, run: RunContext, tmp_path: Path
) -> None:
    Path(app.uploads).mkdir()
    Path(app.uploads, "one").write_text("1")
    app = replace(app, database="")
    assert back_up(app, programs).returncode == 0
    profile, made = tmp_path / "profile", tmp_path / "made"
    profile.write_text("mine")
    aside = Path(app.uploads, f".before-{RELEASE}")
    aside.mkdir()
    (aside / ".restored-sums").symlink_to(profile)
    (aside / ".moved").symlink_to(made)

    done = run(restore.restore_uploads(app, listed(app)[ID], RELEASE))

    assert (done.returncode, profile.read_text(), made.exists()) == (0, "mine", False), done


def test_restore_uploads_does_not_hard_link_files_through_a_link(
    app: Application, programs: Programs, run: RunContext, tmp_path: Path
) -> None:
    """A hard link to a file of the deploy user would let the container change that file."""
    home = tmp_path / "of the deploy user"
    home.mkdir()
    (home / "profile").write_text("public text")
    Path(app.uploads, "sub").mkdir(parents=True)
    copied = Path(app.uploads, "sub", "profile")
    copied.write_text("public text")
    os.utime(copied, ns=(0, 10**18))
    os.utime(home / "profile", ns=(0, 10**18))
    app = replace(app, database="")
    assert back_up(app, programs).returncode == 0
    copied.unlink()
    copied.parent.rmdir()
    copied.parent.symlink_to(home)

    done = run(restore.restore_uploads(app, listed(app)[ID], RELEASE))

    assert (done.returncode, copied.read_text()) == (0, "public text"), done
    assert (home / "profile").stat().st_nlink == 1


def test_take_uploads_with_pipes_and_links_are_copied_as_they_are(
    app: Application, programs: Programs, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    Path(app.uploads).mkdir()
    os.mkfifo(Path(app.uploads, "pipe"))
    Path(app.uploads, "link").symlink_to(secret)
    Path(app.uploads, "-rf --help\n$(touch pwned)").write_text("x")

    done = back_up(app, programs, kind=BackupKind.MANUAL)

    kept = Path(app.uploads_backups, f"shop-{ID}.uploads", "files")
    assert (done.returncode, listed(app)[ID].uploads, (kept / "link").is_symlink()) == (0, 1, True), done
    assert_nothing_ran(tmp_path)
