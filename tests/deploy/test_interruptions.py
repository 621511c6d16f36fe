"""Deploys while the workstation, the connection or the host fails."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from lab.host import Host
from rolling_upgrade.engine.shell import shell_join
from tests.deploy.conftest import LOCK_FILE, Site, interrupt, kill, start_until_step, wait_until


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.extended)])
def test_deploy_interrupted_during_the_gate_is_undone(site: Site, number: int) -> None:
    process = start_until_step(site, "backend.start", "deploy", "--tag", "never-healthy")
    code, output = interrupt(process, number)
    host = site.lab.hosts[0]
    assert (code, site.version(host)) == (130, "v1"), output
    assert not host.sh("cat /var/lib/memoryark/lock/held", check=False).stdout
    assert sum(site.containers(host).values()) == 2


@pytest.mark.parametrize(
    "step",
    [
        "backend.cutover",
        *(pytest.param(step, marks=pytest.mark.extended) for step in ("backend.start", "frontend.start", "drain")),
    ],
)
def test_deploy_whose_workstation_is_killed_is_completed_by_the_host(site: Site, step: str) -> None:
    """Meanwhile a second deploy names the run, and `attach` follows it from a workstation that did not start it."""
    host = site.lab.hosts[0]
    site.edit_rollout(bake_seconds=5)
    process = start_until_step(site, step, "deploy", "--tag", "v2")
    kill(process)
    code, refused = site.deploy("v3", "--hosts", "web1")
    assert (code, f"attach --env {site.lab.name}" in refused, "deploy v2" in refused) == (4, True, True), refused
    code, followed = site.run("attach", "--hosts", "web1")
    assert (code, "record  done" in followed, "web1 upgraded" in followed) == (0, True, True), followed
    assert (site.version(host), sum(site.containers(host).values())) == ("v2", 2)
    assert not host.sh(f"cat {LOCK_FILE}", check=False).stdout
    assert "deploy  good" in site.run_ok("history", "--limit", "1", "--hosts", "web1")
    assert re.search(r"deploy v2 by .* ago: upgraded \(its workstation was gone\)", site.run_ok("status"))
    report = site.run_ok("report")
    assert (": good (" in report, "backend:v2" in report, "drain" in report) == (True, True, True), report
    assert "No run is in progress" in site.run_ok("attach", "--hosts", "web1")


#: Try to read each file of a run, then to send it a control word. Print what succeeded.
_INTRUDE = """\
cd /var/lib/memoryark
run=journal/RUN
for file in plan.json events.jsonl engine.pyz backup.log backup.session unseen.json attempt alive; do
  if [ -e "$run/$file" ] && cat "$run/$file" >/dev/null; then echo "$file"; fi
done
for directory in journal engine "$run"; do if ls "$directory" >/dev/null; then echo "$directory"; fi; done
if timeout 2 sh -c 'echo WORD > "$1"' sh "$run/control"; then echo control; fi
"""


def intrude(host: Host, user: str, word: str) -> list[str]:
    """Return which files of the newest run a user can read, and `control` if the user can send it a word."""
    run = host.sh("cd /var/lib/memoryark/journal && ls -d */ | sort | tail -n 1").stdout.strip().rstrip("/")
    script = _INTRUDE.replace("RUN", run).replace("WORD", word)
    command = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "sh", "-c", script]
    return [line.replace(run, "RUN") for line in host.sh(shell_join(*command), check=False).stdout.splitlines()]


@pytest.mark.extended
def test_deploy_survives_a_logout_that_ends_all_processes_of_its_session(site: Site) -> None:
    host = site.lab.hosts[0]
    drop_in = "/etc/systemd/logind.conf.d/kill.conf"
    host.sh(f"mkdir -p {Path(drop_in).parent}; printf '[Login]\\nKillUserProcesses=yes\\n' > {drop_in}")
    host.sh("systemctl restart systemd-logind")
    site.edit_rollout(bake_seconds=5)
    try:
        kill(start_until_step(site, "backend.cutover", "deploy", "--tag", "v2"))
        ended = "! loginctl list-sessions --no-legend | grep -w deploy | grep -v -e manager"
        wait_until(lambda: host.sh(ended, check=False).returncode == 0, "the end of the session")
        code, followed = site.run("attach", "--hosts", "web1")
    finally:
        host.sh(f"rm {drop_in}; systemctl restart systemd-logind")
    assert (code, "web1 upgraded" in followed, site.version(host)) == (0, True, "v2"), followed


def test_deploy_whose_workstation_is_killed_before_go_is_ended_by_the_host_within_its_lease(site: Site) -> None:
    """Meanwhile another user of the host can neither read its files nor let it continue."""
    host = site.lab.hosts[0]
    before = site.containers(host)
    site.edit_rollout(lease_seconds=30)
    kill(start_until_step(site, "backup", "deploy", "--tag", "v2"))
    assert intrude(host, "www-data", "go") == []
    assert {"plan.json", "events.jsonl", "control", "journal/RUN"} <= set(intrude(host, "deploy", "wait"))
    wait_until(lambda: host.sh(f"test -e {LOCK_FILE}", check=False).returncode != 0, "the release of the lock", 60)
    assert (site.version(host), site.containers(host)) == ("v1", before)
    code, output = site.deploy("v2", "--hosts", "web1")
    assert (code, site.version(host)) == (0, "v2"), output


def test_deploy_continues_after_a_dropped_connection_and_the_next_reuses_the_port_of_a_stopping_container(
    site: Site,
) -> None:
    """A deploy that was killed while it drained leaves a `podman stop` running, which soon frees the color's port."""
    host = site.lab.hosts[0]
    process = start_until_step(site, "backend.start", "deploy", "--tag", "v2")
    host.sh("pkill -KILL -u deploy -x sshd-session || pkill -KILL -u deploy -x sshd")
    output, _ = process.communicate(timeout=240)
    assert (process.returncode, site.version(host)) == (0, "v2"), output
    assert "Reconnecting" in output

    (name,) = (name for name, runs in site.containers(host).items() if not runs and "frontend" in name)
    host.sh(f"podman start {name} && podman kill --signal STOP {name}", user="deploy")
    host.sh(f"podman stop --time 5 {name} >/dev/null 2>&1 </dev/null &", user="deploy")
    status = f"podman container inspect --format '{{{{.State.Status}}}}' {name}"
    wait_until(lambda: host.sh(status, user="deploy").stdout.strip() == "stopping", "the stop")

    code, output = site.deploy("v1", "--hosts", "web1")

    assert (code, site.version(host)) == (0, "v1"), output


@pytest.mark.extended
@pytest.mark.parametrize("how", ["power_cut", "reboot"])
def test_host_after_a_boot_runs_exactly_the_live_colors(site: Site, how: str) -> None:
    host = site.lab.hosts[0]
    site.deploy("v2", "--hosts", "web1")
    before = set(site.running_containers(host))
    getattr(host, how)()
    wait_until(lambda: site.run("status", "--hosts", "web1")[0] == 0, "the application after a boot", 90)
    assert set(site.running_containers(host)) == before
    assert site.version(host) == "v2"


def test_power_cut_half_way_without_a_workstation_is_undone_at_boot_and_the_same_command_completes_the_deploy(
    site: Site,
) -> None:
    host = site.lab.hosts[0]
    before = {site.running_container(host, service) for service in ("backend", "frontend")}
    with site.edited_services() as content:
        content["services"][1]["start"] = "after_previous"
    process = start_until_step(site, "frontend.start", "deploy", "--tag", "v2")
    host.kill()
    kill(process)
    host.start()
    ended = f"test ! -e {LOCK_FILE} && ! ls /var/lib/memoryark/journal/*/plan.json"
    wait_until(lambda: host.sh(ended, check=False).returncode == 0, "the undo after the boot", 90)
    assert (site.version(host), set(site.running_containers(host))) == ("v1", before)
    assert "deploy  undone" in site.run_ok("history", "--limit", "1", "--hosts", "web1")
    code, output = site.deploy("v2", "--hosts", "web1")
    assert (code, site.version(host)) == (0, "v2"), output
