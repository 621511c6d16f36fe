"""Hosts without rootless Podman: the same tasks work with containers of root."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab import laboratory
from lab.host import Host
from tests.deploy.conftest import LOCK_FILE, Site, shorten_waits, wait_until


@pytest.fixture(scope="module")
def rootful(worker_id: str) -> Iterator[Site]:
    """One host after setup, on which root deployed v1."""
    name = f"rootful-{worker_id}"
    laboratory.down(name)
    site = Site(laboratory.up(1, name=name))
    shorten_waits(site)
    site.edit_environment(user="root", setup={"firewall": "nftables", "watchdog": "true"})
    site.env_file.write_text(site.env_file.read_text().replace("/home/deploy/", "/srv/ark/"))
    site.edit_env(HEALTH_CHECK_INTERVAL="1s", HEALTH_CHECK_TIMEOUT="3s", HEALTH_CHECK_RETRIES="2")
    site.run_ok("setup")
    site.deploy_ok("v1")
    yield site
    laboratory.down(name)


@pytest.fixture
def host(rootful: Site) -> Host:
    """The one host."""
    return rootful.lab.hosts[0]


def test_rootful_host_upgrades_undoes_rolls_back_and_reboots(rootful: Site, host: Host) -> None:
    assert host.sh("podman info --format '{{.Host.Security.Rootless}}'").stdout.strip() == "false"
    assert host.sh("ps -u deploy -o args=", check=False).stdout == ""
    code, output = rootful.deploy("v2")
    assert (code, rootful.versions()) == (0, ["v2"]), output
    assert (rootful.deploy("exits-at-once")[0], rootful.versions()) == (1, ["v2"])
    code, output = rootful.run("rollback")
    assert (code, rootful.versions()) == (0, ["v1"]), output
    host.reboot()
    wait_until(lambda: rootful.run("status")[0] == 0, "the application after a reboot", 90)
    assert rootful.versions() == ["v1"]
    rootful.run_ok("setup.check")


def test_rootful_host_is_backed_up_verified_and_restored(rootful: Site, host: Host) -> None:
    rootful.deploy_ok("v1")
    rootful.run_ok("backup")
    newest = json.loads(rootful.run("backups", "--json")[1])["hosts"][0]["backups"][-1]["id"]
    rootful.run_ok("backup.verify")
    code, output = rootful.run("restore", newest)
    assert (code, rootful.versions()) == (0, ["v1"]), output
    assert host.sh("ls -A /srv/ark/data /srv/ark/uploads | grep -c before", check=False).stdout.strip() == "0"


def test_rootful_host_is_recovered_by_its_watchdog(rootful: Site, host: Host) -> None:
    rootful.deploy_ok("v1")
    rootful.run_ok("monitor.status")
    host.sh("podman stop -t 1 $(podman ps --format '{{.Names}}' | grep backend)")
    wait_until(lambda: rootful.run("status")[0] == 0, "the recovery", 120)
    wait_until(lambda: not host.sh(f"cat {LOCK_FILE}", check=False).stdout, "the end of the recovery")


def test_rootful_host_passes_its_checks(rootful: Site) -> None:
    rootful.run_ok("health", "--once")
    rootful.run_ok("doctor")
