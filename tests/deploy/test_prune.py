"""Pruning a real host: its list, its deletions, and that a rollback still works."""

from __future__ import annotations

import json

import pytest

from tests.deploy.conftest import LOCK_FILE, Site, fingerprint, hold_lock

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
    site.deploy_ok("v2", "--hosts", "web1")
    host.sh(PLANT, user="deploy")
    before = fingerprint(host)

    code, listed = site.run("prune", "--dry-run", "--json", "--hosts", "web1")
    unchanged = fingerprint(host)
    done, output = site.run("prune", "--hosts", "web1")
    again = site.run("prune", "--hosts", "web1")

    items = json.loads(listed)["hosts"][0]["things"]
    kinds = sorted({item["kind"] for item in items})
    assert (code, done, again[0], before == unchanged) == (0, 0, 0, True), output
    assert kinds == ["configuration", "flag", "image", "journal"]
    assert [item["bytes"] > 1_000_000 for item in items if item["kind"] == "image"] == [True]
    assert "freed" in output
    assert "web1: nothing to delete" in again[1]
    assert "stranger" in site.containers(host)
    host.sh("podman rm stranger", user="deploy")
    site.run_ok("rollback", "--hosts", "web1")
    assert site.version(host) == "v1"


@pytest.mark.hosts(2)
def test_prune_on_a_locked_host_is_refused(site: Site) -> None:
    host = site.lab.hosts[1]
    host.sh("mkdir /var/lib/memoryark/config/former-1", user="deploy")
    hold_lock(host)

    code, output = site.run("prune", "--hosts", "web2")

    host.sh(f"rm {LOCK_FILE}", user="deploy")
    assert (code, host.sh("ls -d /var/lib/memoryark/config/former-1").stdout.strip() != "") == (4, True), output
