"""`inv health` on real hosts: one line per healthy host, and each fault reported by its check."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from lab.host import Host
from rolling_upgrade.console.task import root
from rolling_upgrade.errors import ExitCode
from rolling_upgrade.features.health.workflow import health
from rolling_upgrade.ssh.fabric_host import FabricHost
from tests.deploy.conftest import Site, wait_until

DATABASE = "/home/deploy/data/memoryark.db"
BACKUPS = "/home/deploy/backups/database"
LOCK = "/var/lib/memoryark/lock"


@pytest.fixture
def web1(site: Site) -> Host:
    """The first host, with limits that the disk and the memory of the lab's machine do not exceed."""
    site.edit_env(MAX_MEMORY_PERCENT="100", MIN_FREE_PERCENT="1")
    return site.lab.hosts[0]


def failed(site: Site, *, host: str = "web1") -> set[str]:
    """Return the names of the failed checks on one host."""
    code, output = site.run("health", "--json", "--hosts", host)
    (report,) = json.loads(output)["hosts"]
    names = {check["name"] for check in report["checks"] if not check["ok"]}
    assert (code, report["ok"]) == ((1, False) if names else (0, True)), output
    return names


def is_healthy(site: Site) -> bool:
    """Return whether every check of the first host passes."""
    return failed(site) == set()


@contextmanager
def mounted(host: Host, directory: str, options: str) -> Iterator[None]:
    """Mount a small file system of the deploy user, and unmount it at the end."""
    host.sh(f"mount -t tmpfs -o {options},uid=1000,gid=1000 tmpfs {directory}")
    try:
        yield
    finally:
        host.sh(f"umount {directory}")


@pytest.mark.hosts(2)
def test_health_of_healthy_hosts_prints_one_line_each(site: Site, web1: Host) -> None:
    code, output = site.run("health", "--once")

    assert code == 0, output
    rows = output.splitlines()
    assert rows[0].startswith("web1  healthy, ")
    assert rows[1].startswith("web2  healthy, ")
    assert rows[-1] == f"{site.lab.name}: 2 hosts, healthy"
    assert len(rows) == 4


def test_health_verbose_shows_every_check_with_its_answer_and_time(site: Site, web1: Host) -> None:
    code, output = site.run("health", "--once", "--verbose", "--hosts", "web1")

    assert code == 0, output
    rows = [row.strip() for row in output.splitlines() if row.startswith("  ok")]
    text = "\n".join(rows)
    for name in ("backend container", "backend http", "backend nginx", "frontend http", "full chain", "site"):
        assert name in text
    for name in ("disk /", "inodes /", "memory", "database", "integrity", "clock"):
        assert name in text
    for name in ("backend http", "frontend nginx", "full chain"):
        row = next(row for row in rows if name in row)
        assert "HTTP 200" in row
        assert row.endswith(" ms")


@pytest.mark.hosts(2)
def test_health_uses_one_connection_and_one_execution_per_host(
    site: Site, web1: Host, fabric_hosts: list[FabricHost], capsys: pytest.CaptureFixture[str]
) -> None:
    assert health(site.lab.name, root=root(), once=True) is ExitCode.DONE

    assert [(host.connections, host.executions) for host in fabric_hosts] == [(1, 1), (1, 1)]
    assert "healthy" in capsys.readouterr().out


@pytest.mark.hosts(2)
def test_health_json_lists_every_check(site: Site, web1: Host) -> None:
    code, output = site.run("health", "--json")

    content = json.loads(output)
    assert (code, content["environment"]) == (0, site.lab.name)
    assert [(host["host"], host["ok"]) for host in content["hosts"]] == [("web1", True), ("web2", True)]
    (chain,) = [check for check in content["hosts"][0]["checks"] if check["name"] == "full chain"]
    assert (chain["kind"], chain["ok"], chain["answered"]) == ("http", True, True)


@pytest.mark.hosts(2)
def test_health_stopped_container_is_reported(site: Site, web1: Host) -> None:
    name = site.running_container(web1)
    web1.sh(f"podman stop -t 1 {name}", user="deploy")
    try:
        code, output = site.run("health", "--once")
        status_code, status = site.run("status")
    finally:
        web1.sh(f"podman start {name}", user="deploy")

    assert code == 1, output
    assert (status_code, "UNHEALTHY: web1" in status) == (1, True), status
    assert "backend container" in output
    assert f"{site.lab.name}: 2 hosts, UNHEALTHY: web1: backend container, backend http" in output
    assert "web2  healthy" in output
    wait_until(partial(is_healthy, site), "the backend")


def test_health_hanging_backend_is_reported_and_other_checks_pass(site: Site, web1: Host) -> None:
    pid = f"$(podman inspect --format '{{{{.State.Pid}}}}' {site.running_container(web1)})"
    web1.sh(f"kill -STOP {pid}", user="deploy")
    try:
        failures = failed(site)
    finally:
        web1.sh(f"kill -CONT {pid}", user="deploy")

    assert failures == {"backend http", "backend nginx", "full chain"}
    wait_until(partial(is_healthy, site), "the backend")


def test_health_stopped_nginx_does_not_fail_the_checks_of_the_services(site: Site, web1: Host) -> None:
    web1.sh("systemctl stop nginx")
    try:
        failures = failed(site)
    finally:
        web1.sh("systemctl start nginx")

    assert failures == {"backend nginx", "frontend nginx", "full chain", "site"}
    wait_until(partial(is_healthy, site), "Nginx")


def test_health_corrupt_database_is_reported_until_it_is_restored(site: Site, web1: Host) -> None:
    web1.sh(f"rm -f {LOCK}/integrity; mv {DATABASE} {DATABASE}.away; head -c 65536 /dev/urandom > {DATABASE}")
    web1.sh(f"chown --reference={DATABASE}.away {DATABASE}; chmod --reference={DATABASE}.away {DATABASE}")
    try:
        failures = failed(site)
    finally:
        web1.sh(f"mv -f {DATABASE}.away {DATABASE}")

    assert {"database", "integrity"} <= failures
    wait_until(partial(is_healthy, site), "the database")


def test_health_missing_database_is_reported_and_not_created(site: Site, web1: Host) -> None:
    site.edit_env(DATABASE_PATH="/home/deploy/data/none.db")

    assert {"database"} <= failed(site)

    assert web1.sh("ls /home/deploy/data/none.db || :").stdout == ""


def test_health_full_disk_is_reported_by_its_mount(site: Site, web1: Host) -> None:
    site.edit_env(MIN_FREE_PERCENT="10")
    with mounted(web1, BACKUPS, "size=1m"):
        web1.sh(f"head -c 1000000 /dev/zero > {BACKUPS}/full")
        failures = failed(site)

    assert f"disk {BACKUPS}" in failures


def test_health_exhausted_inodes_are_reported_by_their_mount(site: Site, web1: Host) -> None:
    site.edit_env(MIN_FREE_PERCENT="10")
    with mounted(web1, BACKUPS, "size=4m,nr_inodes=20"):
        web1.sh(f"cd {BACKUPS} && touch $(seq 18)")
        failures = failed(site)

    assert f"inodes {BACKUPS}" in failures
    assert f"disk {BACKUPS}" not in failures


def test_health_host_without_disk_space_still_reports_every_check(site: Site, web1: Host) -> None:
    with mounted(web1, LOCK, "size=64k,mode=0700"):
        web1.sh(f"head -c 1m /dev/zero > {LOCK}/full || :")
        failures = failed(site)

    assert failures == set()


def test_health_memory_above_the_limit_is_reported(site: Site, web1: Host) -> None:
    site.edit_env(MAX_MEMORY_PERCENT="0")

    assert failed(site) == {"memory"}


def test_health_checks_the_age_of_scheduled_backups(site: Site, web1: Host) -> None:
    site.edit_env(AUTO_BACKUP_ENABLED="true", DATABASE_BACKUP_PATH=f"{BACKUPS}/new")
    web1.sh(f"mkdir {BACKUPS}/new", user="deploy")
    try:
        missing = failed(site)
        site.run_ok("backup", "--hosts", "web1")
        fresh = failed(site)
        web1.sh(f"touch -d '-2 days' {BACKUPS}/new/*/manifest.json")
        old = failed(site)
    finally:
        web1.sh(f"rm -rf {BACKUPS}/new")

    assert (missing, fresh, old) == ({"backup"}, set(), {"backup"})


@pytest.mark.extended
def test_health_checks_the_certificate_that_nginx_serves(site: Site, web1: Host) -> None:
    paths = {"SSL_CERT_PATH": "/etc/ssl/short.crt", "SSL_KEY_PATH": "/etc/ssl/short.key"}
    web1.sh(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 5 -subj /CN=app.lab.test"
        f" -keyout {paths['SSL_KEY_PATH']} -out {paths['SSL_CERT_PATH']}"
    )
    with site.setup_with(web1, PROTOCOL="https", **paths):
        site.deploy_ok("v1", "--hosts", "web1")

        assert failed(site) == {"certificate"}

        site.edit_env(MIN_CERTIFICATE_DAYS="4")
        assert failed(site) == set()


@pytest.mark.extended
def test_health_stops_after_max_failures(site: Site, web1: Host) -> None:
    web1.sh(f"podman stop {site.running_container(web1)}", user="deploy")

    code, output = site.run("health", "--interval", "1s", "--max-failures", "2", "--hosts", "web1")

    assert (code, output.count("Next check in 1 s"), output.count("UNHEALTHY")) == (1, 1, 2), output


@pytest.mark.extended
def test_health_auto_recovery_lets_the_watchdog_restart_a_stopped_container(site: Site, web1: Host) -> None:
    stopped = site.running_container(web1)
    web1.sh(f"podman stop {stopped}", user="deploy")
    try:
        code, output = site.run("health", "--auto-recovery", "--once", "--hosts", "web1")
        assert (code, "web1: the watchdog is installed" in output) == (1, True), output
        wait_until(partial(is_healthy, site), "the recovery")
        assert site.containers(web1)[stopped]
    finally:
        site.run_ok("monitor.uninstall", "--hosts", "web1")


def test_health_auto_recovery_is_refused_where_recovery_is_disabled(site: Site, web1: Host) -> None:
    site.edit_env(AUTO_RECOVERY_ENABLED="false")

    code, output = site.run("health", "--auto-recovery", "--once", "--hosts", "web1")

    assert (code, "AUTO_RECOVERY_ENABLED is false" in output) == (2, True), output


def test_health_maintenance_page_is_shown_and_not_a_failure(site: Site, web1: Host) -> None:
    site.run_ok("maintenance", "on", "--hosts", "web1")
    try:
        code, output = site.run("health", "--once", "--hosts", "web1")
    finally:
        site.run_ok("maintenance", "off", "--hosts", "web1")

    assert code == 0, output
    assert "maintenance page on" in output


@pytest.mark.extended
@pytest.mark.hosts(2)
def test_health_unreachable_host_is_named_and_the_other_is_reported(site: Site, web1: Host) -> None:
    unreachable = site.lab.hosts[1]
    unreachable.cut_network()
    try:
        code, output = site.run("health", "--once")
    finally:
        unreachable.restore_network()

    assert code == 1, output
    assert "web1  healthy" in output
    assert "web2  UNREACHABLE: cannot reach" in output
    assert output.rstrip().endswith(f"{site.lab.name}: 2 hosts, UNHEALTHY: web2: unreachable")


@pytest.mark.hosts(2)
def test_health_malformed_answer_is_reported_and_the_other_host_is_checked(site: Site, web1: Host) -> None:
    web1.sh("mv /usr/bin/awk /usr/bin/awk.away")
    try:
        code, output = site.run("health", "--once")
    finally:
        web1.sh("mv /usr/bin/awk.away /usr/bin/awk")

    assert (code, "web2  healthy" in output) == (1, True), output
    assert "web1  UNREACHABLE: the observation of web1 is truncated: " in output
    assert "awk: not found" in output


def test_health_unknown_host_exits_with_2(site: Site) -> None:
    code, output = site.run("health", "--once", "--hosts", "nope")

    assert (code, "nope" in output) == (2, True), output
