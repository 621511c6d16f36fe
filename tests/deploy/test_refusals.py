"""Deploys that are refused before any change: their exit code, their cause, and unchanged hosts."""

from __future__ import annotations

import subprocess

import pytest

from lab.laboratory import Lab
from tests.deploy.conftest import LOCK_FILE, Site, fingerprint, hold_lock, wait_until


def refused(site: Site, *words: str, code: int = 3) -> str:
    """Run a deploy that has to be refused without a change to any host. Return its output."""
    before = [fingerprint(host) for host in site.lab.hosts]
    exit_code, output = site.deploy("v2", *words)
    assert exit_code == code, output
    assert [fingerprint(host) for host in site.lab.hosts] == before
    assert site.versions() == ["v1"] * len(before)
    return output


def test_deploy_with_the_registry_down_is_refused(site: Site) -> None:
    site.lab.registry.stop()
    try:
        assert "registry" in refused(site)
    finally:
        site.lab.registry.start()


def test_deploy_of_a_missing_image_is_refused(site: Site) -> None:
    before = [fingerprint(host) for host in site.lab.hosts]
    code, output = site.deploy("v99")
    assert code == 3
    assert "backend:v99" in output
    assert [fingerprint(host) for host in site.lab.hosts] == before


def test_deploy_with_a_full_disk_a_taken_port_and_a_foreign_container_is_refused(site: Site) -> None:
    """All problems are reported at once."""
    host = site.lab.hosts[0]
    color, port = ("green", 28080) if site.containers(host).get("memoryark-backend-blue") else ("blue", 18080)
    name = f"memoryark-backend-{color}"
    image = host.sh("podman images -q | head -n 1", user="deploy").stdout.strip()
    host.sh(f"podman rm -f --ignore {name}; podman create --name {name} {image}", user="deploy")
    host.sh(f"systemd-run --unit=taken python3 -m http.server {port} --bind 127.0.0.1")
    host.sh("mount -t tmpfs -o size=1m,mode=0777 tmpfs /home/deploy/backups/database")
    try:
        wait_until(lambda: f"127.0.0.1:{port} " in host.sh("ss -Hltn").stdout, "a listener on the port")
        output = refused(site)
    finally:
        host.sh("umount /home/deploy/backups/database; systemctl stop taken")
        host.sh(f"podman rm -f {name}", user="deploy")
    assert "free for backups" in output
    assert f"port {port}" in output
    assert name in output


@pytest.mark.hosts(2)
def test_deploy_with_an_unknown_host_key_is_refused(site: Site) -> None:
    known = site.directory / "known_hosts"
    rows = known.read_text().splitlines()
    known.write_text("\n".join(row for row in rows if not row.startswith(site.lab.hosts[1].address)) + "\n")
    assert "web2" in refused(site)


@pytest.mark.hosts(2)
def test_deploy_with_a_changed_host_key_is_refused(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    key = tmp_path_factory.mktemp("key") / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    other = " ".join(key.with_name("other.pub").read_text().split()[:2])
    known = site.directory / "known_hosts"
    address = site.lab.hosts[1].address
    rows = [f"{address} {other}" if row.startswith(address) else row for row in known.read_text().splitlines()]
    known.write_text("\n".join(rows) + "\n")
    assert "refused before the login" in refused(site)


@pytest.mark.hosts(2)
def test_deploy_with_an_unreachable_host_is_refused(site: Site) -> None:
    host = site.lab.hosts[1]
    host.cut_network()
    try:
        code, output = site.deploy("v2")
    finally:
        host.restore_network()
    assert code == 3, output
    assert "web2: cannot reach" in output
    assert site.versions() == ["v1", "v1"]


@pytest.mark.hosts(2)
def test_deploy_on_a_locked_host_exits_with_4(site: Site) -> None:
    host = site.lab.hosts[1]
    hold_lock(host)
    try:
        assert "eve@elsewhere" in refused(site, code=4)
    finally:
        host.sh(f"rm {LOCK_FILE}", user="deploy")


def test_deploy_that_needs_confirmation_without_a_terminal_exits_with_2(site: Site) -> None:
    site.edit_rollout(confirm=True)
    assert "--force" in refused(site, code=2)


@pytest.mark.hosts(2)
def test_deploy_to_a_host_without_setup_is_refused(worker_lab: Lab, site: Site) -> None:
    host = worker_lab.hosts[1]
    site.lab.hosts[1].sh("mv /usr/local/lib/memoryark/site /root/site")
    try:
        assert "Run inv setup" in refused(site)
    finally:
        host.sh("mv /root/site /usr/local/lib/memoryark/site")
