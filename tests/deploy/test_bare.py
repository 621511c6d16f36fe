"""Setup of a host that has only root and sshd: interruption, repetition, deploys, hardening and teardown."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import pytest

from lab.host import Host
from tests.deploy.bare_host import (
    SECURE,
    assert_only_the_site_helper_runs_as_root,
    bare_host,
    edit_setup,
    host,
    run_setup,
)
from tests.deploy.conftest import Site, wait_until

__all__ = ["host"]

RELEASES = ["trixie-bare", pytest.param("bookworm-bare", marks=pytest.mark.extended)]
#: For behaviour that is the same on every release.
one_release = pytest.mark.parametrize("bare", RELEASES[:1], indirect=True)

EVERYTHING = {
    "firewall": "nftables",
    "certificate": "self-signed",
    "sysctl": {"net.core.somaxconn": "8192", "fs.file-max": "100000"},
    "security_updates": "true",
    "rotate_logs_days": "14",
    "watchdog": "true",
    "node_exporter": "true",
    "monitoring_host": "192.0.2.9",
}


@pytest.fixture(scope="module", params=RELEASES)
def bare(request: pytest.FixtureRequest, worker_id: str) -> Iterator[Site]:
    """One host on which setup never ran."""
    yield from bare_host(request.param, f"{request.param}-{worker_id}")


def test_bare_host_power_cut_during_setup_through_a_sudo_user_is_resumed_by_the_same_command(
    bare: Site, host: Host
) -> None:
    prepared = "command -v podman nginx curl sudo || id deploy"
    if host.sh(prepared, check=False).returncode == 0:
        bare.lab.reset_host(host.name)
    bare.edit_env(PROTOCOL="http")
    edit_setup(
        bare, firewall="ufw", watchdog=True, node_exporter=True, monitoring_host="192.0.2.9", rotate_logs_days="14"
    )
    bare.edit_environment(setup_user="admin")
    assert host.sh(prepared, check=False).returncode != 0
    # The lab expects the deploy user to be the first ordinary user, 1000.
    host.sh("""
        useradd --uid 900 --create-home --shell /bin/sh admin && usermod -p '*' admin
        install -d -o admin -m 700 /home/admin/.ssh
        install -o admin -m 600 /etc/ssh/lab_authorized_keys /home/admin/.ssh/authorized_keys
    """)
    try:
        code, output = bare.run("setup")
        assert (code, "set setup_user in hosts.yaml to root or" in output) == (3, True), output
        host.sh("""
            DEBIAN_FRONTEND=noninteractive apt-get -qq update
            DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install sudo
            echo 'admin ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/admin && chmod 440 /etc/sudoers.d/admin
        """)
        process = bare.start("setup")
        unpacking = "ls /var/lib/dpkg/info/nginx*.list /var/lib/dpkg/info/podman*.list"
        wait_until(lambda: host.sh(unpacking, check=False).returncode == 0, "packages that are being installed", 300)
        host.power_cut()
        output, _ = process.communicate(timeout=300)
        assert process.returncode != 0, output
        # As if the power had failed in the middle of this package.
        status = "Status: install reinstreq half-installed"
        host.sh(
            f"sed -i '/^Package: sudo$/,/^$/ s/^Status: .*/{status}/' /var/lib/dpkg/status; dpkg --audit | grep sudo"
        )
        bare.run_ok("setup")
        code, output = bare.run("setup")
        assert (code, "Nothing to do" in output) == (0, True), output
    finally:
        bare.edit_environment(setup_user="root")
    bare.deploy_ok("v1")
    assert bare.versions() == ["v1"]
    assert "overlay" in host.sh("podman info --format '{{.Store.GraphDriverName}}'", user="deploy").stdout
    host.sh(
        "systemd-run --quiet python3 -c 'import socket,time; s=socket.create_server((\"\", 9999)); time.sleep(600)'"
    )
    wait_until(lambda: "9999" in host.sh("ss -Hltn").stdout, "a listener on every address")
    assert [reaches(host.address, port) for port in (22, 80, 9999)] == [True, True, False]
    host.reboot()
    wait_until(lambda: bare.run("status")[0] == 0, "the application after a reboot", 90)
    assert bare.versions() == ["v1"]
    bare.run_ok("setup.check")
    firewall = host.sh("ufw status").stdout
    assert "Status: active" in firewall
    assert re.search(r"^9100/tcp +ALLOW +192\.0\.2\.9", firewall, re.MULTILINE)
    # The other tests of this host expect no firewall, and setup leaves ufw alone where the settings name none.
    edit_setup(bare)
    host.sh("ufw disable")


def test_bare_host_deploy_user_may_run_only_two_command_lines_as_root(bare: Site, host: Host) -> None:
    run_setup(bare)
    assert_only_the_site_helper_runs_as_root(host)


@one_release
def test_bare_host_rejects_passwords_of_the_deploy_user(bare: Site, host: Host) -> None:
    run_setup(bare)
    settings = host.sh("sshd -T -C user=deploy,host=x,addr=192.0.2.1").stdout
    assert {"passwordauthentication no", "kbdinteractiveauthentication no", "exposeauthinfo yes"} <= {
        *settings.splitlines()
    }


def failed_checks(site: Site) -> list[str]:
    """Return the names of the failed checks of the one host."""
    (report,) = json.loads(site.run("health", "--json")[1])["hosts"]
    return [check["name"] for check in report["checks"] if not check["ok"]]


@one_release
def test_bare_host_with_every_setting_opens_only_ssh_and_the_site(bare: Site, host: Host) -> None:
    edit_setup(bare, **EVERYTHING)
    bare.edit_env(AUTO_BACKUP_ENABLED="true", **SECURE)
    bare.run_ok("setup")
    code, output = bare.run("setup")
    assert (code, "Nothing to do" in output) == (0, True), output
    bare.deploy_ok("v1")
    with bare.unchanged_files():
        bare.edit_env(MAX_MEMORY_PERCENT="100", MIN_FREE_PERCENT="1")
        assert "certificate" not in failed_checks(bare)
        bare.edit_env(MIN_CERTIFICATE_DAYS="3000")
        assert "certificate" in failed_checks(bare)
    address = host.address
    listener = (
        "nohup python3 -c 'import socket,time; s=socket.create_server((\"\", 9999)); time.sleep(600)' >/dev/null 2>&1 &"
    )
    host.sh(listener)
    wait_until(lambda: "9999" in host.sh("ss -Hltn").stdout, "a listener on every address")
    assert (reaches(address, 9999), reaches(address, 22), reaches(address, 443)) == (False, True, True)
    assert not reaches(address, 9100)
    assert 'rolling_look_ok{app="memoryark"' in host.sh("curl -s 127.0.0.1:9100/metrics").stdout
    host.power_cut()
    wait_until(lambda: bare.run("status")[0] == 0, "the application after a power cut", 90)
    host.sh(listener)
    wait_until(lambda: "9999" in host.sh("ss -Hltn").stdout, "a listener on every address")
    assert not reaches(address, 9999)
    bare.run_ok("monitor.status")
    assert host.sh("cat /proc/sys/net/core/somaxconn").stdout.strip() == "8192"
    assert int(host.sh("cat /proc/sys/fs/file-max").stdout) > 100_000
    bare.run_ok("setup.check")
    host.sh("systemctl stop rolling-firewall; rm /etc/apt/apt.conf.d/20auto-upgrades")
    host.sh("chmod 777 /usr/local/lib/memoryark/boot")
    code, output = bare.run("setup.check")
    assert (code, [word in output for word in ("nftables", "security updates", "at boot")]) == (1, [True] * 3), output
    assert reaches(address, 9999)
    run_setup(bare)
    assert not reaches(address, 9999)


@one_release
def test_bare_host_rotates_logs_of_every_writer(bare: Site, host: Host) -> None:
    edit_setup(bare, **EVERYTHING)
    run_setup(bare)
    host.sh("podman unshare sh -c 'seq 1000 > logs/app.log; chown 33:33 logs/app.log'", user="deploy")
    yesterday = "sed -i 's|app.log\" .*|app.log\" 2020-1-1-0:0:0|' /var/lib/memoryark/logs.state"
    run = "systemctl --user start memoryark-logs.service"
    host.sh(f"{run}; {yesterday}; {run}", user="deploy")
    assert host.sh("wc -c < logs/app.log; head -n 1 logs/app.log.1", user="deploy").stdout.split() == ["0", "1"]
    assert "memoryark-logs.timer" in host.sh("systemctl --user list-timers", user="deploy").stdout


@one_release
def test_bare_host_of_another_distribution_is_refused_with_a_list_to_prepare(bare: Site, host: Host) -> None:
    run_setup(bare)
    host.sh("mv /usr/bin/apt-get /usr/bin/jq /root/")
    try:
        code, output = bare.run("setup")
    finally:
        host.sh("mv /root/apt-get /root/jq /usr/bin/")
    assert (code, "not Debian or Ubuntu: install podman" in output) == (3, True), output
    assert "nothing was touched" in output


@one_release
def test_bare_host_directory_of_another_program_is_left_alone(bare: Site, host: Host) -> None:
    edit_setup(bare)
    bare.edit_env(APP_NAME="apt")
    before = host.sh("stat -c '%U %a' /var/lib/apt; ls -la /var/lib/apt").stdout
    try:
        code, output = bare.run("setup")
    finally:
        bare.edit_env(APP_NAME="memoryark")
    assert (code, "choose another APP_NAME" in output, "nothing was touched" in output) == (3, True, True), output
    assert host.sh("stat -c '%U %a' /var/lib/apt; ls -la /var/lib/apt").stdout == before


def test_bare_host_teardown_requires_the_name_and_keeps_the_data(bare: Site, host: Host) -> None:
    edit_setup(bare, **EVERYTHING)
    bare.edit_env(AUTO_BACKUP_ENABLED="true", **SECURE)
    run_setup(bare)
    code, output = bare.run("teardown")
    assert (code, "--confirm memoryark" in output) == (2, True), output
    code, output = bare.run("teardown", "--confirm", "another")
    assert (code, "nothing was touched" in output) == (130, True), output
    bare.run_ok("teardown", "--confirm", "memoryark")
    kept = ("/home/deploy/data/*", "/home/deploy/backups/*", "/proc/*", "*/containers/*")
    left = "find / -xdev -iname '*memoryark*' " + " ".join(f"-not -path '{path}'" for path in kept)
    assert host.sh(left).stdout == ""
    assert host.sh("nft list tables").stdout.count("rolling") == 0
    assert host.sh("test -d /home/deploy/data && podman ps -aq", user="deploy").stdout == ""
    code, output = bare.run("teardown", "--confirm", "memoryark")
    assert (code, "Nothing to do" in output) == (0, True), output
    run_setup(bare)
    code, output = bare.run("teardown", "--confirm", "memoryark", "--data")
    assert (code, host.sh("test -e /home/deploy/data", check=False).returncode) == (0, 1), output


def reaches(address: str, port: int) -> bool:
    """Return whether a connection from this machine opens."""
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True
