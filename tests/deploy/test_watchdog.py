"""The watchdog on a lab host: recoveries, their limits, and restarts of the watchdog itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from lab.host import Host
from rolling_upgrade.errors import HostUnreachable
from tests.deploy.conftest import Site, wait_until

LOG = "/var/lib/memoryark/watchdog/log"
#: While this file exists, v2 of the sample backend is unhealthy.
UNHEALTHY = "/home/deploy/data/unhealthy-v2"


@pytest.fixture
def web1(site: Site) -> Iterator[Host]:
    """The first host with a new watchdog that observes every second."""
    host = site.lab.hosts[0]
    site.edit_env(HEALTH_CHECK_INTERVAL="1s", HEALTH_CHECK_TIMEOUT="3s", HEALTH_CHECK_RETRIES="2", FRESH_RELEASE="0")
    site.run_ok("monitor.install", "--hosts", "web1")
    yield host
    site.run_ok("monitor.uninstall", "--hosts", "web1")


def log(host: Host) -> str:
    """Return the watchdog's log."""
    return host.sh(f"cat {LOG}").stdout


def process(name: str) -> str:
    """Return shell text for the process id of a container."""
    return f"$(podman inspect --format '{{{{.State.Pid}}}}' {name})"


def wait_for_log(host: Host, text: str, seconds: float = 60) -> None:
    """Wait until the log contains the text. A failure shows the log."""
    try:
        wait_until(lambda: text in log(host), f"{text!r} in the watchdog's log", seconds)
    except HostUnreachable as error:
        raise AssertionError(log(host)) from error


@pytest.mark.parametrize("how", ["hangs", pytest.param("stopped", marks=pytest.mark.extended)])
def test_watchdog_stopped_container_is_restarted(site: Site, web1: Host, how: str) -> None:
    name = site.running_container(web1)
    web1.sh(f"podman stop -t 1 {name}" if how == "stopped" else f"kill -STOP {process(name)}", user="deploy")

    wait_for_log(web1, "restart backend: done")

    assert site.serves(web1, "v1")
    assert site.running_container(web1) == name
    code, output = site.run("history", "--hosts", "web1", "--json")
    newest = json.loads(output)["hosts"][0]["releases"][-1]
    assert (code, newest["action"], newest["owner"], newest["outcome"]) == (0, "recovery", "watchdog", "good")


def test_watchdog_container_unhealthy_after_a_restart_is_replaced(site: Site, web1: Host) -> None:
    """A missing container cannot be restarted: the second recovery starts the same release in a new one."""
    web1.sh(f"podman rm -f -t 0 {site.running_container(web1)}", user="deploy")

    wait_for_log(web1, "redeploy backend: done", 90)

    assert site.serves(web1, "v1")


def test_watchdog_new_release_that_crashes_is_rolled_back(site: Site, web1: Host) -> None:
    site.edit_env(FRESH_RELEASE="10m", HEALTH_CHECK_INTERVAL="5s")
    site.run_ok("monitor.install", "--hosts", "web1")
    site.deploy_ok("v2", "--hosts", "web1")
    name = site.running_container(web1)

    def rolled_back() -> bool:
        """Crash the new release whenever it serves again. Return whether the watchdog rolled it back."""
        if site.serves(web1, "v2"):
            web1.sh(f'pid={process(name)} && test "$pid" -gt 0 && kill -9 "$pid"', user="deploy", check=False)
        return "roll back backend: done" in log(web1)

    wait_until(rolled_back, "the rollback", 90)

    assert site.serves(web1, "v1")
    code, output = site.run("rollback", "--hosts", "web1")
    assert (code, "no earlier good release" in output) == (3, True), output


@pytest.mark.extended
def test_watchdog_new_release_unhealthy_after_its_gate_is_rolled_back(site: Site, web1: Host) -> None:
    """A restart does not help a release that reports itself unhealthy, so the watchdog rolls back at once."""
    site.edit_env(FRESH_RELEASE="10m")
    site.run_ok("monitor.install", "--hosts", "web1")
    site.deploy_ok("v2", "--hosts", "web1")
    web1.sh(f"touch {UNHEALTHY}", user="deploy")
    try:
        wait_for_log(web1, "roll back backend: done", 90)
    finally:
        web1.sh(f"rm {UNHEALTHY}", user="deploy")

    assert site.serves(web1, "v1")
    assert "restart" not in log(web1)


def test_watchdog_waits_while_an_operator_holds_the_lock(site: Site, web1: Host) -> None:
    site.run_ok("lock.acquire", "--hosts", "web1", "--reason", "inspecting the host")
    name = site.running_container(web1)
    web1.sh(f"podman stop -t 1 {name}", user="deploy")
    wait_for_log(web1, "nothing: the lock is held: ")
    assert not site.containers(web1)[name]

    site.run_ok("lock.release", "--hosts", "web1")

    wait_for_log(web1, "restart backend: done")


def test_watchdog_is_replaced_while_it_runs_restarted_when_killed_and_a_second_one_refuses_to_run(
    site: Site, web1: Host
) -> None:
    code, output = site.run("monitor.install", "--hosts", "web1")
    assert (code, "nothing changed" in output) == (0, True), output
    site.edit_env(HEALTH_CHECK_INTERVAL="2s")
    code, output = site.run("monitor.install", "--hosts", "web1")
    assert (code, "replaced" in output) == (0, True), output
    wait_for_log(web1, "every 2 s")

    pid = "systemctl --user show -P MainPID memoryark-watchdog"
    before = web1.sh(pid, user="deploy").stdout
    web1.sh(f"kill -9 $({pid})", user="deploy")
    wait_until(lambda: web1.sh(pid, user="deploy").stdout not in {before, "0\n"}, "another watchdog")

    start_second = (
        "timeout 20 python3 -I /var/lib/memoryark/watchdog/watchdog.pyz watch /var/lib/memoryark 2>&1; echo $?"
    )
    wait_until(lambda: log(web1).count("watching memoryark") == 3, "the first line of its log")
    output = web1.sh(start_second, user="deploy").stdout

    assert "another watchdog of memoryark runs on this host" in output
    assert output.endswith("4\n")


@pytest.mark.extended
@pytest.mark.parametrize("how", [Host.power_cut, Host.reboot])
def test_watchdog_runs_again_after_a_boot(site: Site, web1: Host, how: Callable[[Host], None]) -> None:
    how(web1)
    wait_until(lambda: log(web1).count("watching memoryark") == 2, "the watchdog after the boot", 90)
    wait_until(lambda: site.serves(web1, "v1"), "the application after the boot", 90)


@pytest.mark.hosts(2)
def test_watchdog_install_without_python_is_refused_without_changes(site: Site) -> None:
    host = site.lab.hosts[1]
    host.sh("mv /usr/bin/python3 /usr/bin/python3.away")
    try:
        code, output = site.run("monitor.install", "--hosts", "web2")
    finally:
        host.sh("mv /usr/bin/python3.away /usr/bin/python3")
    assert (code, "needs python3 of at least 3.10" in output) == (3, True), output
    assert host.sh("ls /var/lib/memoryark/watchdog 2>&1 || :").stdout.count("No such file") == 1
