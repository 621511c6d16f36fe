"""The deploy lock: concurrent runs, a holder that resumes after its lease, and a lock of an operator."""

from __future__ import annotations

import os
import re

import pytest

from lab.host import Host
from tests.deploy.conftest import LOCK_FILE, PROJECT, Site, hold_lock, kill, wait_for_task, wait_until
from tests.deploy.fork_server import fork_server

RUNS = 4


def lock_file(host: Host) -> str:
    return host.sh(f"cat {LOCK_FILE}", check=False).stdout


@pytest.mark.hosts(2)
def test_deploys_started_at_once_only_one_takes_the_lock(site: Site) -> None:
    history = "wc -l < /var/lib/memoryark/releases.jsonl"
    before = [int(host.sh(history).stdout) for host in site.lab.hosts]
    site.edit_rollout(bake_seconds=6)  # the first run is still baking when the last one tries to lock
    words = ("deploy", "--env", site.lab.name, "--tag", "v2", "--force")
    processes = [fork_server().start(words, PROJECT, {**os.environ, "CI": "true"}) for _ in range(RUNS)]
    results = [wait_for_task(process) for process in processes]
    codes = sorted(code for code, _ in results)
    assert codes == [0] + [4] * (RUNS - 1), [output[-400:] for code, output in results if code not in {0, 4}]
    assert all(re.search(r"locked by \S+ \(process \d+\): deploy v2", output) for code, output in results if code)
    site.run_ok("status")
    assert [int(host.sh(history).stdout) for host in site.lab.hosts] == [lines + 1 for lines in before]
    assert [lock_file(host) for host in site.lab.hosts] == ["", ""]


def test_deploy_resumed_after_a_takeover_is_refused_at_its_next_step(site: Site) -> None:
    host = site.lab.hosts[0]
    paused = site.start("deploy", "--tag", "v2", "--hosts", "web1")
    try:
        wait_until(lambda: "reason=deploy v2" in lock_file(host), "the lock of the first run")
        host.sh("pkill -STOP -u deploy -f 'engine.pyz run'")
        host.sh(f"flock /var/lib/memoryark/lock/stage sed -i 's/^expires_at=.*/expires_at=1/' {LOCK_FILE}")
        code, output = site.deploy("v3", "--hosts", "web1", "--force")
        assert (code, site.version(host)) == (0, "v3"), output
        assert "took over the lock of" in output
        after = (site.containers(host), host.sh("cat /var/lib/memoryark/releases.jsonl").stdout)
        host.sh("pkill -CONT -u deploy -f 'engine.pyz run'")
        code, output = wait_for_task(paused)
    finally:
        if paused.poll() is None:
            kill(paused)
    assert code == 4, output
    assert (site.containers(host), host.sh("cat /var/lib/memoryark/releases.jsonl").stdout) == after
    assert site.version(host) == "v3"


@pytest.mark.extended
@pytest.mark.hosts(2)
def test_lock_acquired_by_an_operator_refuses_deploys_until_released(site: Site) -> None:
    site.run_ok("lock.acquire", "--reason", "new disk", "--for", "30m")
    code, output = site.deploy("v2")
    assert code == 4, output
    assert "(by hand): new disk" in output
    assert "inv lock.release" in output
    code, output = site.run("lock.status")
    assert (code, output.count("new disk")) == (0, 2), output
    assert "29m" in output
    site.run_ok("lock.release")
    assert [lock_file(host) for host in site.lab.hosts] == ["", ""]


@pytest.mark.extended
@pytest.mark.hosts(2)
def test_lock_acquire_of_a_held_lock_is_refused_and_release_needs_force(site: Site) -> None:
    second = site.lab.hosts[1]
    hold_lock(second)
    code, output = site.run("lock.acquire", "--reason", "new disk")
    assert (code, lock_file(site.lab.hosts[0])) == (4, ""), output
    code, output = site.run("lock.release")
    assert (code, "eve@elsewhere" in output) == (4, True), output
    stage = second.machine.podman(
        "exec", "--detach", second.container, "flock", "/var/lib/memoryark/lock/stage", "sleep", "60"
    )
    assert stage.returncode == 0
    wait_until(
        lambda: second.sh("flock -n /var/lib/memoryark/lock/stage true", check=False).returncode != 0, "the stage"
    )
    code, output = site.run("lock.release", "--force")
    assert (code, "is still running" in output) == (4, True), output
    second.sh("pkill -x sleep")
    code, output = site.run("lock.release", "--force")
    assert (code, lock_file(second)) == (0, ""), output
    assert "eve@elsewhere" in output


@pytest.mark.parametrize(
    "words", [(), ("--reason", " "), ("--reason", "x", "--for", "soon"), ("--reason", "x", "--for", "8d")]
)
@pytest.mark.extended
def test_lock_acquire_with_invalid_options_exits_with_2(words: tuple[str, ...], site: Site) -> None:
    code, output = site.run("lock.acquire", *words)
    assert (code, "nothing was contacted" in output) == (2, True), output
