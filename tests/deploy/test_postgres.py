"""Backups of an application with a real PostgreSQL server on its host."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab.host import Host
from rolling_upgrade.engine.shell import shell_join
from tests.deploy.conftest import Site, fingerprint

PASSWORD = "p:w\\x'y-of-the-server"
URL = "postgresql://shop:p%3Aw%5Cx%27y-of-the-server@127.0.0.1:5432/shop"
_SERVER = r"""
pg_createcluster --locale C.UTF-8 --start "$(ls /usr/lib/postgresql)" main
runuser -u postgres -- psql -q -v ON_ERROR_STOP=1 <<'SQL'
create role shop login createdb password 'p:w\x''y-of-the-server';
create database shop owner shop;
SQL
"""


def sql(host: Host, text: str, role: str = "shop") -> str:
    """Run SQL as a role. Return the output."""
    return host.sh(f'cd /; runuser -u postgres -- psql -qAt shop -c "set role {role}" -c "{text}"').stdout.strip()


@pytest.fixture(scope="module")
def served(prepared_site: Site) -> Iterator[Site]:
    """The site with a server on web1 that holds three rows."""
    host = prepared_site.lab.hosts[0]
    host.sh(_SERVER)
    sql(host, "create table item (id bigint generated always as identity, number serial, name text primary key)")
    sql(host, "insert into item (name) select generate_series(1, 3)")
    with prepared_site.unchanged_files():
        prepared_site.edit_env(DATABASE_URL=URL)
        yield prepared_site
    host.sh('pg_dropcluster --stop "$(ls /usr/lib/postgresql)" main')


def backup(site: Site) -> str:
    """Take a backup. Return its id."""
    site.run_ok("backup", "--hosts", "web1")
    code, output = site.run("backups", "--hosts", "web1", "--json")
    newest = json.loads(output)["hosts"][0]["backups"][-1]
    assert (code, newest["database"]) == (0, "postgres"), output
    return str(newest["id"])


def test_postgres_backup_is_verified_and_restored(served: Site) -> None:
    host = served.lab.hosts[0]
    rows = sql(host, "select count(*) from item")
    id = backup(served)
    code, output = served.run("backup.verify", "--hosts", "web1")
    assert (code, "1 tables, restored into a temporary database" in output) == (0, True), output
    assert sql(host, "select count(*) from pg_database where datname like '%verify%'") == "0"
    sql(host, "insert into item (name) values ('later'); create table another (item text references item(name))")
    sql(host, "create view seen as select name from item; create schema newer create table it (x int)")
    code, output = served.run("restore", id, "--hosts", "web1", "--only", "database")
    assert (code, sql(host, "select count(*) from item")) == (0, rows), output
    assert sql(host, "select count(*) from pg_tables where tableowner = 'shop'") == "1"
    assert served.version(host) == "v1"
    assert sum(served.containers(host).values()) == 2
    assert PASSWORD not in output
    leaks = host.sh("grep -rl '[p]:w' /var/lib/memoryark/journal /proc/[0-9]*/cmdline", check=False)
    assert leaks.stdout == ""


def test_postgres_verification_without_createdb_only_reads_the_dump(served: Site) -> None:
    host = served.lab.hosts[0]
    backup(served)
    sql(host, "alter role shop nocreatedb", "postgres")
    code, output = served.run("backup.verify", "--hosts", "web1")
    sql(host, "alter role shop createdb", "postgres")
    assert (code, "not restored: permission denied to create database" in output) == (0, True), output


def test_postgres_wrong_password_is_refused_without_changes(served: Site) -> None:
    host = served.lab.hosts[0]
    rows = sql(host, "select count(*) from item")
    id = backup(served)
    served.edit_env(DATABASE_URL=URL.replace("server@", "serverr@"))
    before = fingerprint(host)
    code, output = served.run("backup", "--hosts", "web1")
    served.edit_env(DATABASE_URL=URL)
    assert (code, "password authentication failed" in output) == (1, True), output
    assert len(fingerprint(host).splitlines()) == len(before.splitlines())
    assert sql(host, "select count(*) from item") == rows
    assert backup(served) > id


def test_postgres_damaged_dump_is_refused_before_any_change(served: Site) -> None:
    host = served.lab.hosts[0]
    id = backup(served)
    sql(host, "insert into item (name) values ('kept')")
    host.sh(f"truncate -s -20 /home/deploy/backups/database/memoryark-{id}/database.pgdump", user="deploy")
    code, output = served.run("restore", id, "--hosts", "web1", "--only", "database")
    assert (code, "damaged: database.pgdump has" in output) == (1, True), output
    assert sql(host, "select count(*) from item where name = 'kept'") == "1"
    assert sum(served.containers(host).values()) == 2


_TAMPER = """\
import hashlib, json, sys
name, command = sys.argv[1:]
found = f"CREATE TABLE public.{name}".encode()
with open("database.pgdump", "rb") as file:
    content = file.read()
assert found in content
with open("database.pgdump", "wb") as file:
    file.write(content.replace(found, command.encode().ljust(len(found))))
with open("manifest.json") as file:
    manifest = json.load(file)
for entry in manifest["files"]:
    if entry["path"] == "database.pgdump":
        with open("database.pgdump", "rb") as file:
            entry["sha256"] = hashlib.sha256(file.read()).hexdigest()
with open("manifest.json", "w") as file:
    json.dump(manifest, file, indent=2)
"""


def test_postgres_dump_with_a_psql_command_is_refused_and_runs_nothing(served: Site) -> None:
    """A hostile server can answer pg_dump with any text, including lines that psql reads as its commands."""
    host = served.lab.hosts[0]
    name, mark = "placeholder_" + "x" * 50, "/tmp/pwned-by-a-dump"
    sql(host, f"create table {name} (a int)")
    id = backup(served)
    sql(host, f"drop table {name}; insert into item (name) values ('since')")  # noqa: S608 - a name of the test's own
    directory = f"/home/deploy/backups/database/memoryark-{id}"
    tamper = shell_join("python3", "-I", "-c", _TAMPER, name, f"select 1;\n\\! touch {mark}\n--")
    host.sh(f"cd {directory} && {tamper}", user="deploy")

    code, output = served.run("restore", id, "--hosts", "web1", "--only", "database")

    assert (code, "backslash commands are restricted" in output) == (1, True), output
    assert host.sh(f"ls {mark}", check=False).returncode != 0
    assert sql(host, "select count(*) from item where name = 'since'") == "1"
    assert sum(served.containers(host).values()) == 2
