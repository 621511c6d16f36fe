"""Accessories on a real host: PostgreSQL and Redis beside the services, from up to down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab.accessory_images import publish_accessories
from lab.host import Host
from tests.deploy.conftest import Site, fingerprint, wait_until

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


@pytest.fixture(scope="module")
def served(prepared_site: Site) -> Iterator[Site]:
    """The site with two accessories on web1, which are removed at the end."""
    publish_accessories(prepared_site.lab.registry, prepared_site.lab.machine, "postgres", "redis")
    with prepared_site.unchanged_files():
        prepared_site.edit_env(DB_PASSWORD=PASSWORD)
        with prepared_site.edited_services() as content:
            content["accessories"] = ACCESSORIES
        yield prepared_site
        prepared_site.run("accessory.down", "--data", "--confirm", "memoryark")


def sql(site: Site, text: str) -> str:
    """Run SQL in the database. Return the output."""
    return site.run_ok("accessory.exec", "--name", "db", "--", "psql", "-qAtU", "shop", "-c", text).strip()


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
    assert (health(served), sql(served, "select name from item")) == ({"db": "17.1", "redis": "8"}, "kept")
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
    assert sql(served, "select name from item") == "kept"
    names = f"memoryark-accessory-db {served.running_container(host)}"
    db, backend = host.sh(f"podman inspect -f '{{{{.State.StartedAt}}}}' {names}", user="deploy").stdout.splitlines()
    assert db < backend


def test_down_keeps_the_data_unless_asked(served: Site) -> None:
    host = served.lab.hosts[0]
    served.run_ok("accessory.down", "--name", "db", "--force")
    assert health(served)["db"] == "not up"
    served.run_ok("accessory.up")
    assert sql(served, "select name from item") == "kept"

    code, output = served.run("accessory.down", "--data", "--confirm", "other")
    assert (code, "nothing was touched" in output) == (130, True), output
    served.run_ok("accessory.down", "--data", "--confirm", "memoryark")

    assert host.sh("podman volume ls -q; ls /var/lib/memoryark/accessories", user="deploy").stdout == ""
    assert sorted(served.containers(host)) == sorted(
        f"memoryark-{service}-{color}" for service in ("backend", "frontend") for color in ("blue", "green")
    )
