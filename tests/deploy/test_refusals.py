"""Deploys that are refused before any change: their exit code, their cause, and unchanged hosts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.host import Host
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


HOME = "/var/lib/memoryark"
JOURNAL = f"{HOME}/journal"
FULL = f"mount -t tmpfs -o mode=0700,uid=1000,gid=1000,size=%s tmpfs {JOURNAL}"
READ_ONLY = "mount --bind {0} {0} && mount -o remount,bind,ro {0}"


@contextmanager
def mounted(host: Host, command: str, *paths: str) -> Iterator[None]:
    """Run a mount command, and unmount the paths at the end."""
    host.sh(command)
    try:
        yield
    finally:
        host.sh(f"umount {' '.join(paths)}")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        # No room for the program of the run, for its plan, or for its events.
        (FULL % "64k", "No space left on device"),
        pytest.param(FULL % "200k", "No space left on device", marks=pytest.mark.extended),
        pytest.param(FULL % "228k", "No space left on device", marks=pytest.mark.extended),
        pytest.param(READ_ONLY.format(JOURNAL), "Read-only file system", marks=pytest.mark.extended),
    ],
)
def test_deploy_with_a_journal_that_cannot_be_written_is_refused_before_the_lock(
    command: str, reason: str, site: Site
) -> None:
    host = site.lab.hosts[0]
    with mounted(host, command, JOURNAL):
        output = refused(site)
        assert host.sh(f"test -e {LOCK_FILE}", check=False).returncode != 0
    assert f"{host.name}: the run could not start; nothing was touched" in output
    assert reason in output
    assert JOURNAL in output
    assert f"Next: inv doctor --env {site.lab.name} --hosts {host.name}" in output


@pytest.mark.extended
def test_deploy_with_a_read_only_application_directory_is_refused(site: Site) -> None:
    with mounted(site.lab.hosts[0], READ_ONLY.format(HOME), HOME):
        output = refused(site)
    assert "the application's directory is missing or not writable" in output


@pytest.mark.extended
def test_deploy_needs_neither_executable_files_nor_a_writable_tmp(site: Site) -> None:
    """Python reads the engine, and the scripts of steps are in memory."""
    host = site.lab.hosts[0]
    command = (
        f"mount --bind {HOME} {HOME} && mount -o remount,bind,noexec {HOME} && mount -t tmpfs -o ro,noexec tmpfs /tmp"
    )
    with mounted(host, command, HOME, "/tmp"):
        site.deploy_ok("v2")
    assert site.versions() == ["v2"]
