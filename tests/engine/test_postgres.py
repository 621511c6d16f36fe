"""Scripts that run PostgreSQL's programs: the password stays hidden, and a failure leaves nothing behind."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Application, DatabaseServer
from rolling_upgrade.engine.shell import quote, script
from rolling_upgrade.features.backup import shell as backup
from rolling_upgrade.features.backup.manifest import BackupKind, Verdict
from rolling_upgrade.features.restore import shell as restore
from tests.features.backup.test_shell import ID, listed
from tests.support.sample import application
from tests.support.shell import Programs, moved, sh

ADDRESS = "postgresql://ark@db.test:5433/ark?sslmode=require"
PASSWORD = "p:w\\x'$HOME"
#: The help of a pg_restore that can keep a dump from running commands.
HELP = "case $* in --help) echo ' --restrict-key=KEY'; exit ;; esac"


@pytest.fixture
def app(tmp_path: Path, programs: Programs) -> Application:
    """An application with a database server; stubs of PostgreSQL's programs record their arguments."""
    for name in ("home/lock", "home/journal/r2"):
        (tmp_path / name).mkdir(parents=True)
    programs.add("podman", 'case $1 in unshare) shift; exec "$@" ;; ps) ;; esac')
    programs.add("psql", "echo 12")
    programs.add("pg_dump", 'cat "$PGPASSFILE" >"$here/seen"; echo dump >database.pgdump')
    programs.add("pg_restore", HELP)
    base = application(database="", database_backups=f"{tmp_path}/backups")
    return replace(base, database_server=DatabaseServer(ADDRESS, PASSWORD))


def take(app: Application, programs: Programs, tmp_path: Path) -> tuple[int, str]:
    done = sh(moved(backup.take(app, ID, BackupKind.MANUAL), app, tmp_path / "home"), path=programs.path)
    return done.returncode, done.stdout + done.stderr


def test_take_passes_the_password_in_a_private_file_and_not_in_arguments(
    app: Application, programs: Programs, tmp_path: Path
) -> None:
    code, said = take(app, programs, tmp_path)

    assert (code, (tmp_path / "seen").read_text()) == (0, "*:*:*:*:p\\:w\\\\x'$HOME\n"), said
    assert (tmp_path / "home/postgres.pass").stat().st_mode & 0o777 == 0o600
    assert not any("p:w" in word or "p\\:w" in word for call in programs.calls() for word in call)
    assert PASSWORD not in backup.take(app, ID, BackupKind.MANUAL).masked


def test_take_writes_a_verified_custom_format_dump(app: Application, programs: Programs, tmp_path: Path) -> None:
    take(app, programs, tmp_path)

    (dump,) = programs.calls("pg_dump")
    assert {"--format=custom", "--no-password", f"--dbname={ADDRESS}"} <= set(dump)
    assert programs.calls("pg_restore") == [["pg_restore", "--file=/dev/null", "database.pgdump"]]
    assert (listed(app)[ID].database, listed(app)[ID].problem) == ("postgres", "")


@pytest.mark.parametrize("failing", ["psql", "pg_dump", "pg_restore"])
def test_take_with_a_failing_program_leaves_no_backup(
    failing: str, app: Application, programs: Programs, tmp_path: Path
) -> None:
    programs.add(failing, "echo 'FATAL: password authentication failed' >&2; exit 2")

    code, said = take(app, programs, tmp_path)

    assert (code != 0, "password authentication failed" in said, listed(app)) == (True, True, {})


def test_verify_dump_that_cannot_be_read_is_damaged(app: Application, programs: Programs, tmp_path: Path) -> None:
    take(app, programs, tmp_path)
    programs.add("pg_restore", "echo 'could not read' >&2; exit 1")

    text = moved(script(backup.verify(app, listed(app)[ID])), app, tmp_path / "home")

    assert sh(text, path=programs.path).returncode == backup.DAMAGED_STATUS


@pytest.mark.parametrize("missing", ["pg_restore", "psql"])
def test_verify_without_a_required_program_reports_no_damage(
    missing: str, app: Application, programs: Programs, tmp_path: Path
) -> None:
    take(app, programs, tmp_path)
    (programs.directory / missing).unlink()
    for name in ("podman", "flock", "sh", "rm", "cat", "date", "mv", "chmod", "mkdir"):
        if not (programs.directory / name).exists():
            (programs.directory / name).symlink_to(str(shutil.which(name)))

    text = moved(script(backup.verify(app, listed(app)[ID])), app, tmp_path / "home")
    done = sh(text, path=str(programs.directory))

    assert (done.returncode, f"{missing} is missing" in done.stdout) == (1, True), done.stderr
    assert listed(app)[ID].verdict is Verdict.UNVERIFIED


@pytest.mark.parametrize("said", ["FATAL: the database system is shutting down", "could not extend file: No space"])
def test_verify_refused_by_the_server_reports_no_damage(
    said: str, app: Application, programs: Programs, tmp_path: Path
) -> None:
    take(app, programs, tmp_path)
    programs.add("pg_restore", f'case $* in *--dbname=*) echo "{said}" >&2; exit 1 ;; esac')

    done = sh(moved(script(backup.verify(app, listed(app)[ID])), app, tmp_path / "home"), path=programs.path)

    assert (done.returncode, said in done.stdout) == (1, True), done.stderr
    assert listed(app)[ID].verdict is Verdict.UNVERIFIED


def test_restore_is_one_transaction_and_undone_only_if_completed(
    app: Application, programs: Programs, tmp_path: Path
) -> None:
    take(app, programs, tmp_path)
    taken = listed(app)[ID]
    programs.add("psql", f"case $* in *-c*) echo hstore ;; *) cat >{tmp_path}/said; echo restored ;; esac")
    listing = 'case $* in *--list*) echo "3; 3079 1 EXTENSION - hstore"; echo kept ;; *) echo SQL ;; esac'
    programs.add("pg_restore", f"{HELP}\n{listing}")

    def run(text: str) -> list[list[str]]:
        before = len(programs.calls("pg_restore"))
        assert sh(script(moved(text, app, tmp_path / "home")), path=programs.path).returncode == 0
        return [call for call in programs.calls("pg_restore")[before:] if not {"--list", "--help"} & set(call)]

    assert run(restore.undo_database(app, taken, "r2")) == []
    (put,) = run(restore.restore_database(app, taken, "r2"))
    assert {"--clean", "--if-exists", "--single-transaction"} <= set(put)
    said = (tmp_path / "said").read_text()
    assert said.index("begin;") < said.index("cascade") < said.index("SQL") < said.index("\\echo restored")
    assert (tmp_path / "home/journal/r2/postgres.restored.list").read_text() == "kept\n"
    (back,) = run(restore.undo_database(app, taken, "r2"))
    assert back[-1] == f"{backup.backup_path(app, 'r2')}/database.pgdump"


def test_restore_of_a_truncated_dump_changes_nothing(app: Application, programs: Programs, tmp_path: Path) -> None:
    """The server receives no commit, although psql exits with 0."""
    take(app, programs, tmp_path)
    programs.add("psql", f"case $* in *-c*) ;; *) cat >{tmp_path}/said ;; esac")
    programs.add("pg_restore", f"{HELP}\ncase $* in *--list*) echo kept ;; *) echo SQL; exit 1 ;; esac")

    text = moved(restore.restore_database(app, listed(app)[ID], "r2"), app, tmp_path / "home")
    done = sh(script(text), path=programs.path)

    assert (done.returncode, "nothing was changed" in done.stdout) == (1, True), done.stderr
    assert "restored" not in (tmp_path / "said").read_text()
    assert not (tmp_path / "home/journal/r2/postgres.restored").exists()


def test_restore_with_vulnerable_postgresql_programs_is_refused(
    app: Application, programs: Programs, tmp_path: Path
) -> None:
    """pg_restore from before August 2025 has no --restrict-key, so psql would execute a line `\\!` of a dump."""
    take(app, programs, tmp_path)
    programs.add(
        "pg_restore", "case $* in *--restrict-key*) exit 1 ;; *--list*) echo kept ;; *) echo '\\! pwned' ;; esac"
    )
    programs.add("psql", f"case $* in *-c*) ;; *) cat >{tmp_path}/said ;; esac")
    taken = listed(app)[ID]

    for text in (
        restore.restore_database(app, taken, "r2"),
        backup.check(app, taken, database=True, files=False),
    ):
        done = sh(moved(script(text), app, tmp_path / "home"), path=programs.path)
        assert (done.returncode, "could run commands on this host" in done.stdout) == (1, True), done

    assert not (tmp_path / "said").exists()


@pytest.mark.parametrize("answer", ["x[$(touch pwned)]", "12; touch pwned", "", "1e9"])
def test_take_with_an_invalid_database_size_is_refused(
    answer: str, app: Application, programs: Programs, tmp_path: Path
) -> None:
    programs.add("psql", f"echo {quote(answer)}")

    code, said = take(app, programs, tmp_path)

    assert (code, "the size of the database is not a number" in said, listed(app)) == (1, True, {}), said
    assert not programs.calls("pg_dump")
