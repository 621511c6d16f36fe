"""Databases in accessories: counting dumps, and the scripts with a `podman` stub that plays the accessory."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine import accessory_database as databases
from rolling_upgrade.engine.model import AccessoryDatabase, Application
from tests.support.sample import application
from tests.support.shell import HOSTILE, Programs, moved, sh

SHOP = AccessoryDatabase("db", "postgres", "it's shop", "shop", 5432, "s3cret'x")
LEGACY = AccessoryDatabase("my", "mysql", "it's `legacy`", "old", 3306, "s3cret'y")
APP = replace(application(), databases=(SHOP, LEGACY))

POSTGRES_DUMP = r"""SET statement_timeout = 0;
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ select 1 $$;
CREATE TABLE public.item (
    name text
);
CREATE UNLOGGED TABLE public.fast (a int);
COPY public.item (name) FROM stdin;
CREATE TABLE no
two\nlines
\\.
\.

COPY public.fast (a) FROM stdin;
\.
"""
MYSQL_DUMP = r"""-- MariaDB dump
CREATE TABLE `it``em (` (
  `name` text DEFAULT 'x'
);
INSERT INTO `it``em (` VALUES
(1,'it\'s (one);',0x01),
(2,'two''s\n',NULL);
CREATE TABLE `b` (a int);
INSERT INTO `b` VALUES (1),(2),(3);
/*!50001 CREATE VIEW v AS SELECT (1) */;
CREATE TABLE `empty` (a int);
-- Dump completed on 2026-11-30
"""


def add_accessory(programs: Programs, inside: str = ":") -> None:
    """Add a `podman` whose accessories run; `inside` is the body of a program in one."""
    programs.add("podman", f'if [ "$2" = inspect ]; then echo true; else {inside}; fi')


def test_count_of_a_postgres_dump(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "dump").write_text(POSTGRES_DUMP)
    add_accessory(programs, "cat")

    done = sh(databases.counted(APP, SHOP, "dump"), path=programs.path, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (0, "2 3\n")


def test_count_of_a_mysql_dump_of_a_table_with_generated_columns(tmp_path: Path) -> None:
    """Their INSERTs name the other columns; with these counted, an intact backup would count as damaged."""
    dump = "INSERT INTO `a` (`x`, `y (z)`) VALUES (1,'('),(2,'b');\n"
    dump += "INSERT INTO `a` (`x`) VALUES\n(3),\n(4);\n-- Dump completed\n"
    (tmp_path / "dump").write_bytes(gzip.compress(dump.encode()))

    assert sh(databases.counted(APP, LEGACY, "dump"), cwd=tmp_path).stdout == "0 4\n"


def test_count_of_a_mysql_dump(tmp_path: Path) -> None:
    (tmp_path / "dump").write_bytes(gzip.compress(MYSQL_DUMP.encode()))

    done = sh(databases.counted(APP, LEGACY, "dump"), cwd=tmp_path)

    assert (done.returncode, done.stdout) == (0, "3 5\n")


def test_count_fails_when_pg_restore_fails(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "dump").write_text(POSTGRES_DUMP)
    add_accessory(programs, "cat; exit 1")

    assert sh(databases.counted(APP, SHOP, "dump"), path=programs.path, cwd=tmp_path).returncode == 1


@pytest.mark.parametrize("lines", [-1, -2])
def test_count_fails_for_a_mysql_dump_that_is_cut_short(lines: int, tmp_path: Path) -> None:
    text = "\n".join(MYSQL_DUMP.splitlines()[:lines])
    (tmp_path / "dump").write_bytes(gzip.compress(text.encode()))

    done = sh(databases.counted(APP, LEGACY, "dump"), cwd=tmp_path)

    assert (done.returncode, "cut short" in done.stderr) == (1, True)


def dumped(
    programs: Programs, tmp_path: Path, inside: str, one: AccessoryDatabase = SHOP, kind: str = "manual"
) -> tuple[int, str]:
    """Run the dump of a database. Return the status, and the output with the entry for the manifest."""
    add_accessory(programs, inside)
    text = moved(databases.dump(APP, one, str(tmp_path / "*/manifest.json")), APP, tmp_path)
    done = sh(f"set -eu\nkind={kind} databases=''\n{text}\necho \"$databases\"", path=programs.path, cwd=tmp_path)
    return done.returncode, done.stdout


def test_dump_adds_its_counts_to_the_manifest(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "dump").write_text(POSTGRES_DUMP)

    status, output = dumped(programs, tmp_path, f"cat {tmp_path}/dump")

    entry = '{"accessory": "db", "kind": "postgres", "name": "it\'s shop", "file": "db.pgdump", "tables": 2, "rows": 3}'
    assert (status, output.splitlines()[-1]) == (0, entry)
    assert (tmp_path / "db.pgdump").read_text() == POSTGRES_DUMP
    assert not (tmp_path / "said").exists()


def test_dump_passes_the_password_only_in_the_environment(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "databases").mkdir()
    (tmp_path / "databases/db.pgdump.pass").write_text("s3cret'x")

    dumped(programs, tmp_path, 'echo "$PGPASSWORD" >>"$here/seen"')

    assert (tmp_path / "seen").read_text().splitlines()[0] == "s3cret'x"
    assert not any("s3cret" in word for call in programs.calls() for word in call)


def test_dump_of_a_missing_database_has_no_file(programs: Programs, tmp_path: Path) -> None:
    refusal = 'echo "pg_dump: error: FATAL:  database \\"it is shop\\" does not exist" >&2; exit 1'

    status, output = dumped(programs, tmp_path, refusal)

    assert (status, output) == (0, "it's shop of db: none yet\n\n")
    assert not list(tmp_path.glob("*.pgdump"))


@pytest.mark.parametrize(("kind", "status"), [("manual", 1), ("deploy", 0)])
def test_dump_of_a_database_that_earlier_backups_have_must_not_be_missing(
    kind: str, status: int, programs: Programs, tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    entry = '{"accessory": "my", "kind": "mysql", "name": "it\'s `legacy`", "file": "my.sql.gz", "tables": 1}'
    (tmp_path / "old/manifest.json").write_text(f'  "databases": [{entry}],\n')

    refusal = "echo \"mysqldump: Got error: 1049: Unknown database 'x'\" >&2; exit 2"
    assert dumped(programs, tmp_path, refusal, LEGACY, kind)[0] == status


def test_dump_that_the_server_refuses_fails_with_its_answer(programs: Programs, tmp_path: Path) -> None:
    status, output = dumped(programs, tmp_path, 'echo "role \\"shop\\" does not exist" >&2; exit 1')

    assert (status, 'role "shop" does not exist' in output) == (1, True)


def test_dump_without_a_running_accessory_names_the_next_command(programs: Programs, tmp_path: Path) -> None:
    programs.add("podman", "exit 125")
    text = databases.dump(APP, SHOP, "none")

    done = sh(f"set -eu\n{text}", path=programs.path, cwd=tmp_path)

    assert (done.returncode, "accessory.up" in done.stdout) == (1, True)


def test_files_of_several_databases_in_one_accessory_differ() -> None:
    other = replace(SHOP, name="other")
    app: Application = replace(APP, databases=(SHOP, other, LEGACY))

    names = [databases.file_name(app.databases, one) for one in app.databases]
    assert names == ["db.pgdump", "db.2.pgdump", "my.sql.gz"]


def test_undo_of_a_restore_that_had_not_begun_does_nothing(programs: Programs, tmp_path: Path) -> None:
    programs.add("podman")

    done = sh(f"set -eu\n{databases.undo(APP, LEGACY, 'dump', 'began')}", path=programs.path, cwd=tmp_path)

    assert (done.returncode, programs.calls()) == (0, [])


def test_passwords_are_written_to_private_files(tmp_path: Path) -> None:
    done = sh(moved(databases.store_passwords(APP), APP, tmp_path))

    path = tmp_path / "databases/db.pgdump.pass"
    assert (done.returncode, path.read_text(), path.stat().st_mode & 0o777) == (0, "s3cret'x", 0o600)
    recorded = replace(APP, databases=(replace(SHOP, password=""),))
    assert databases.store_passwords(recorded) == ""


@pytest.mark.parametrize("value", [value for value in HOSTILE if value and "\n" not in value])
def test_names_and_users_reach_the_programs_unchanged(value: str, programs: Programs, tmp_path: Path) -> None:
    for one in (replace(SHOP, name=value, user=value), replace(LEGACY, name=value, user=value)):
        app = replace(APP, databases=(one,))
        add_accessory(programs, "exit 1")
        text = moved(databases.dump(app, one, "none"), app, tmp_path)
        sh(f"set -eu\nkind=manual databases=''\n{text}", path=programs.path, cwd=tmp_path)

    postgres, mysql = (call for call in programs.calls("podman") if call[1] == "exec")
    assert postgres[-2:] == [f"--username={value}", f"--dbname={value}"]
    assert (mysql[-1], value in mysql[:-1]) == (value, True)
    assert not (tmp_path / "pwned").exists()
