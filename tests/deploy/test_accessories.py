"""Accessories on a real host: PostgreSQL and Redis beside the services, from up to down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from lab.accessory_images import publish_accessories
from lab.host import Host
from tests.deploy.conftest import Site, fingerprint, wait_until
from tests.deploy.test_backup import change_database, take_backup

PASSWORD = "p'w:of the$db"
ACCESSORIES: list[dict[str, Any]] = [
    {
        "name": "db",
        "image": "registry:5000/postgres:17",
        "host": "web1",
        "env": {"POSTGRES_USER": {"value": "shop"}, "POSTGRES_PASSWORD": "DB_PASSWORD"},
        "volumes": ["db:/var/lib/postgresql/data"],
        "ports": ["15432:5432"],
        "health": ["pg_isready", "--quiet", "--username", "shop"],
    },
    {
        "name": "redis",
        "image": "registry:5000/redis:8",
        "host": "web1",
        "volumes": ["redis:/data"],
        "health": "redis-cli ping | grep -q PONG",
    },
]


MARIADB: dict[str, Any] = {
    "name": "legacy",
    "image": "registry:5000/mariadb:11",
    "host": "web1",
    "env": {
        "MARIADB_ROOT_PASSWORD": "DB_PASSWORD",
        "MARIADB_DATABASE": {"value": "legacy"},
        "MARIADB_USER": {"value": "old"},
        "MARIADB_PASSWORD": {"value": "l'pw"},
    },
    "volumes": ["legacy:/var/lib/mysql"],
    "health": "mariadb-admin ping",
}
_MARIADB = 'MYSQL_PWD=$MARIADB_PASSWORD exec mariadb --user=old --batch --skip-column-names legacy -e "$1"'


@pytest.fixture(scope="module")
def served(prepared_site: Site) -> Iterator[Site]:
    """The site with two accessories on web1, which are removed at the end."""
    publish_accessories(prepared_site.lab.registry, prepared_site.lab.machine, "postgres", "redis")
    with prepared_site.unchanged_files():
        prepared_site.edit_env(DB_PASSWORD=PASSWORD)
        with prepared_site.edited_services() as content:
            content["accessories"] = ACCESSORIES
            content["services"][0]["env"].append(
                {"SHOP_URL": {"value": f"postgresql://shop:{quote(PASSWORD)}@db/shop"}}
            )
        yield prepared_site
        prepared_site.run("accessory.down", "--data", "--confirm", "memoryark")


def sql(site: Site, text: str) -> str:
    """Run SQL in the database. Return the output."""
    return site.run_ok("accessory.exec", "--name", "db", "--", "psql", "-qAtU", "shop", "-c", text).strip()


def mariadb(site: Site, text: str) -> str:
    """Run SQL in MariaDB as the application's user. Return the output."""
    return site.run_ok("accessory.exec", "--name", "legacy", "--", "sh", "-c", _MARIADB, "sh", text).strip()


def health(site: Site) -> dict[str, str]:
    """Return the tag of each healthy accessory of web1, and the problem of each other one."""
    _, output = site.run("accessory.status", "--json")
    rows = json.loads(output)["hosts"][0]["accessories"]
    return {row["accessory"]: row["problem"] or row["tag"] for row in rows}


def image(site: Site, name: str, tag: str) -> None:
    """Declare another tag of an accessory."""
    with site.edited_services() as content:
        [one] = [one for one in content["accessories"] if one["name"] == name]
        one["image"] = f"registry:5000/{'postgres' if name == 'db' else name}:{tag}"


def test_accessories_start_once_and_survive_deploys(served: Site) -> None:
    host = served.lab.hosts[0]
    before = fingerprint(host)
    assert "db: new, registry:5000/postgres:17" in served.run_ok("accessory.up", "--dry-run")
    assert fingerprint(host) == before

    assert served.run("status", "--hosts", "web1")[0] == 1, "a declared accessory is not up"
    output = served.run_ok("accessory.up")
    sql(served, "create table item (name text); insert into item values ('kept')")

    assert health(served) == {"db": "17", "redis": "8"}
    assert PASSWORD not in output
    assert host.sh("grep -rl '[p].w:of' /proc/[0-9]*/cmdline", check=False).stdout == ""
    address = "podman exec memoryark-backend-blue python3 -c 'import socket; print(socket.gethostbyname(\"db\"))'"
    assert host.sh(address, user="deploy").stdout.startswith("10.")
    assert "Nothing to do" in served.run_ok("accessory.up")
    started = host.sh("podman inspect -f '{{.State.StartedAt}}' memoryark-accessory-db", user="deploy").stdout
    served.deploy_ok("v2", "--hosts", "web1")
    assert host.sh("podman inspect -f '{{.State.StartedAt}}' memoryark-accessory-db", user="deploy").stdout == started
    assert "accessory db" in served.run_ok("health", "--hosts", "web1", "--verbose")
    assert "healthy: db, redis" in served.run("doctor")[1]


def test_upgrade_to_an_image_that_fails_brings_the_old_containers_back(served: Site) -> None:
    image(served, "db", "17.1")
    image(served, "redis", "broken")

    code, output = served.run("accessory.upgrade")

    assert (code, "redis did not become healthy" in output) == (1, True), output
    assert health(served) == {"db": "17", "redis": "8"}
    image(served, "redis", "8")
    served.run_ok("accessory.upgrade")
    assert (health(served), sql(served, "select name from item where name = 'kept'")) == (
        {"db": "17.1", "redis": "8"},
        "kept",
    )
    assert "previous" not in str(served.containers(served.lab.hosts[0]))


def test_stopped_accessory_is_reported_and_a_boot_starts_it_before_the_services(served: Site) -> None:
    host: Host = served.lab.hosts[0]
    host.sh("podman stop memoryark-accessory-redis", user="deploy")
    for task in ("health", "status"):
        code, output = served.run(task, "--hosts", "web1")
        assert (code, "exited, exit code 0" in output) == (1, True), output

    host.reboot()

    wait_until(lambda: served.run("status", "--hosts", "web1")[0] == 0, "everything after a reboot", 90)
    assert health(served) == {"db": "17.1", "redis": "8"}
    assert sql(served, "select name from item where name = 'kept'") == "kept"
    names = f"memoryark-accessory-db {served.running_container(host)}"
    db, backend = host.sh(f"podman inspect -f '{{{{.State.StartedAt}}}}' {names}", user="deploy").stdout.splitlines()
    assert db < backend


def test_database_is_backed_up_verified_and_restored(served: Site) -> None:
    host = served.lab.hosts[0]
    rows = sql(served, "select count(*) from item")
    id = take_backup(served)
    code, output = served.run("backup.verify", "--hosts", "web1")
    assert (code, f"shop of db: {rows} rows, restored into a temporary database" in output) == (0, True), output
    assert sql(served, "select count(*) from pg_database where datname like '%verify%'") == "0"
    sql(served, "insert into item values ('later'); create table another (item text); create schema newer")

    code, output = served.run("restore", id, "--hosts", "web1", "--only", "database")

    assert (code, sql(served, "select count(*) from item")) == (0, rows), output
    assert sql(served, "select count(*) from pg_tables where schemaname in ('public', 'newer')") == "1"
    assert PASSWORD not in output
    leaks = "grep -rl '[p].w:of\\|[p]%27w' /var/lib/memoryark/journal /proc/[0-9]*/cmdline"
    assert host.sh(leaks, check=False).stdout == ""


@pytest.mark.extended
def test_restore_that_fails_later_brings_the_newer_rows_back(served: Site) -> None:
    host = served.lab.hosts[0]
    id = take_backup(served)
    sql(served, "insert into item values ('newer')")
    # The application fails its health check with the restored SQLite file.
    change_database(host, id, "drop table uploads; create view uploads as select n from missing")

    code, output = served.run("restore", id, "--hosts", "web1", "--only", "database")

    assert (code, "restore the previous database" in output) == (1, True), output
    assert sql(served, "select count(*) from item where name = 'newer'") == "1"


@pytest.mark.extended
def test_mariadb_is_backed_up_verified_and_restored(served: Site) -> None:
    """Values with quotes, parentheses and line breaks, and a view; then a restore that is undone."""
    host = served.lab.hosts[0]
    publish_accessories(served.lab.registry, served.lab.machine, "mariadb")
    with served.unchanged_files():
        with served.edited_services() as content:
            content["accessories"].append(MARIADB)
            content["services"][0]["env"].append({"LEGACY_URL": {"value": "mysql://old:l%27pw@legacy/legacy"}})
        served.run_ok("accessory.up", "--name", "legacy")
        mariadb(
            served, r"create table item (id int primary key, name text); insert into item values (1, 'it''s (s);\n')"
        )
        mariadb(served, "create view seen as select name from item; insert into item values (2, 'two')")
        id = take_backup(served)
        code, output = served.run("backup.verify", "--hosts", "web1")
        assert (code, "legacy of legacy: 2 rows, restored into a temporary database" in output) == (0, True), output
        mariadb(served, "insert into item values (3, 'later'); drop view seen; create table another (x int)")

        code, output = served.run("restore", id, "--hosts", "web1", "--only", "database")

        assert (code, mariadb(served, "select count(*) from seen")) == (0, "2"), output
        assert mariadb(served, "show tables").split() == ["item", "seen"]
        mariadb(served, "insert into item values (4, 'newer')")
        change_database(host, id, "drop table uploads; create view uploads as select n from missing")
        code, output = served.run("restore", id, "--hosts", "web1", "--only", "database")
        assert (code, mariadb(served, "select name from item where id = 4")) == (1, "newer"), output
        served.run_ok("accessory.down", "--name", "legacy", "--data", "--confirm", "memoryark")


def test_down_keeps_the_data_unless_asked(served: Site) -> None:
    host = served.lab.hosts[0]
    served.run_ok("accessory.down", "--name", "db", "--force")
    assert health(served)["db"] == "not up"
    served.run_ok("accessory.up")
    assert sql(served, "select name from item where name = 'kept'") == "kept"

    code, output = served.run("accessory.down", "--data", "--confirm", "other")
    assert (code, "nothing was touched" in output) == (130, True), output
    served.run_ok("accessory.down", "--data", "--confirm", "memoryark")

    assert host.sh("podman volume ls -q; ls /var/lib/memoryark/accessories", user="deploy").stdout == ""
    assert sorted(served.containers(host)) == sorted(
        f"memoryark-{service}-{color}" for service in ("backend", "frontend") for color in ("blue", "green")
    )
