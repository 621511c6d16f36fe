"""Pruning a real host: what it lists, what it deletes, and that a rollback still finds all it needs."""

from __future__ import annotations

import json

import pytest

from tests.deploy.conftest import Site, fingerprint

pytestmark = pytest.mark.xdist_group("prune")

PLANT = """
podman pull -q registry:5000/memoryark/backend:v3 >/dev/null
mkdir -p /var/lib/memoryark/config/former-0123456789abcdef
echo SECRET=x > /var/lib/memoryark/config/former-0123456789abcdef/env
touch /var/lib/memoryark/live/former.green
for n in $(seq 10 40); do mkdir -p "/var/lib/memoryark/journal/20200101T0000${n}Z-aaaaaa"; done
image=$(podman container inspect --format "{{.Image}}" memoryark-backend-blue)
podman create --name stranger --pull=never "$image" >/dev/null
"""


def test_prune_lists_then_deletes_and_rollback_still_works(site: Site) -> None:
    host = site.lab.hosts[0]
    assert site.deploy("v2", "--hosts", "web1")[0] == 0
    host.sh(PLANT, user="deploy")
    before = fingerprint(host)

    code, listed = site.run("prune", "--dry-run", "--json", "--hosts", "web1")
    unchanged = fingerprint(host)
    done, output = site.run("prune", "--hosts", "web1")
    again = site.run("prune", "--hosts", "web1")

    things = json.loads(listed)["hosts"][0]["things"]
    kinds = sorted({thing["kind"] for thing in things})
    assert (code, done, again[0], before == unchanged) == (0, 0, 0, True), output
    assert kinds == ["configuration", "flag", "image", "journal"]
    assert [thing["bytes"] > 1_000_000 for thing in things if thing["kind"] == "image"] == [True]
    assert "freed" in output
    assert "web1: nothing to delete" in again[1]
    assert "stranger" in site.running(host)
    host.sh("podman rm stranger", user="deploy")
    back, said = site.run("rollback", "--hosts", "web1")
    assert (back, site.version(host)) == (0, "v1"), said


def test_prune_on_a_locked_host_is_refused(site: Site) -> None:
    host = site.lab.hosts[1]
    host.sh("mkdir /var/lib/memoryark/config/former-1", user="deploy")
    lines = "token=x\\nowner=ann\\nworkstation=elsewhere\\npid=1\\nreason=deploy\\nexpires_at=99999999999\\n"
    host.sh(f"printf '{lines}' > /var/lib/memoryark/lock/held", user="deploy")

    code, output = site.run("prune", "--hosts", "web2")

    host.sh("rm /var/lib/memoryark/lock/held", user="deploy")
    assert (code, host.sh("ls -d /var/lib/memoryark/config/former-1").stdout.strip() != "") == (4, True), output
