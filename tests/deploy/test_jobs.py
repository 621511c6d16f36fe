"""Jobs on real hosts: timers of the deploy user's systemd, containers of the current release, output in the journal."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab.host import Host
from rolling_upgrade.engine import jobs
from rolling_upgrade.engine.model import Application
from tests.deploy.conftest import KEEP_JOURNAL, Site, wait_until

UNIT = "memoryark-job-stamp"
RESULTS = "/var/lib/memoryark/jobs/results"
STAMP = f"/home/deploy/.local/share/systemd/timers/stamp-{UNIT}.timer"
#: Prints the version of its image. Files in the directory of the database decide how long it takes and how it ends.
PROGRAM = """\
import os, pathlib, sys, time
def number(name):
    path = pathlib.Path("/app/data", name)
    return int(path.read_text()) if path.exists() else 0
print("stamp of", os.environ["VERSION"], flush=True)
print("to stderr", file=sys.stderr, flush=True)
time.sleep(number("wait"))
sys.exit(number("code"))
"""
COMMAND = ["python3", "-c", PROGRAM]

LOSE_JOURNAL = (
    "rm -rf /etc/systemd/journald.conf.d/zz-test.conf /var/log/journal/* && systemctl restart systemd-journald"
)


@pytest.fixture
def web1(site: Site) -> Iterator[Host]:
    for host in site.lab.hosts:
        host.sh(KEEP_JOURNAL)
    yield site.lab.hosts[0]
    app = Application("memoryark", "lab", "app.lab.test", ())
    for host in site.lab.hosts:
        host.sh(jobs.remove(app).text, user="deploy")
        host.sh("rm -f /home/deploy/data/wait /home/deploy/data/code")
        host.sh(LOSE_JOURNAL)


def define(site: Site, **changes: object) -> None:
    with site.edited_services() as content:
        job = {
            "name": "stamp",
            "service": "backend",
            "schedule": "0 3 * * *",
            "command": COMMAND,
            "entrypoint": [],
            **changes,
        }
        content["jobs"] = [job]


def user(host: Host, script: str, *, check: bool = True) -> str:
    return host.sh(f"export XDG_RUNTIME_DIR=/run/user/$(id -u)\n{script}", user="deploy", check=check).stdout.strip()


def timers(host: Host) -> list[str]:
    listed = user(host, "systemctl --user list-timers --all --no-legend --plain 'memoryark-job-*'")
    return [word for word in listed.split() if word.endswith(".timer")]


def result(host: Host) -> list[str]:
    """Return result, status and release of the last run."""
    fields = user(host, f"cat {RESULTS}/stamp", check=False).split()
    return [*fields[:2], *fields[4:]]


def listed(site: Site) -> dict[str, object]:
    _, output = site.run("job.list", "--json")
    hosts = json.loads(output)["hosts"]
    return dict(hosts[0]["jobs"][0])


@pytest.mark.hosts(2)
def test_job_is_scheduled_runs_fails_and_follows_releases(site: Site, web1: Host) -> None:
    define(site)
    assert "schedule the jobs stamp" in site.deploy_ok("v2")
    assert [timers(host) for host in site.lab.hosts] == [[f"{UNIT}.timer"], []]

    # A timer that was due while the host was down starts at once.
    user(
        web1, f"systemctl --user stop {UNIT}.timer; touch -d '3 days ago' {STAMP}; systemctl --user start {UNIT}.timer"
    )
    wait_until(lambda: result(web1)[:1] == ["success"], "the run by the timer")
    output = site.run_ok("logs", "--job", "stamp")
    assert "stamp of v2" in output
    assert "to stderr" in output
    assert listed(site)["result"] == "success"
    assert int(str(listed(site)["next_at"])) > 0

    web1.sh("echo 7 > /home/deploy/data/code")
    code, output = site.run("job.run", "--name", "stamp")
    assert (code, "stamp of v2" in output) == (7, True), output
    assert "job stamp: exit code 7" in site.run("status")[1]
    assert "stamp job" in site.run("health", "--once")[1]
    web1.sh("rm /home/deploy/data/code")

    with site.edited_services() as content:
        del content["jobs"]
    site.deploy_ok("v1")
    assert timers(web1) == []
    assert web1.sh(f"ls /home/deploy/.config/systemd/user | grep -c {UNIT}", check=False).stdout.strip() == "0"
    site.run_ok("rollback")
    assert timers(web1) == [f"{UNIT}.timer"]
    define(site)
    assert "stamp of v2" in site.run_ok("job.run", "--name", "stamp")


@pytest.mark.extended
def test_job_survives_a_deploy_and_is_never_run_twice(site: Site, web1: Host) -> None:
    define(site, timeout_seconds=60)
    site.deploy_ok("v2")
    web1.sh("echo 30 > /home/deploy/data/wait")
    user(web1, f"systemctl --user start --no-block {UNIT}.service")
    wait_until(lambda: UNIT in site.running_containers(web1), "the container of the job")

    code, output = site.run("job.run", "--name", "stamp")
    assert (code, "runs already" in output) == (3, True), output
    assert "runs now" in site.run("job.list")[1]
    site.deploy_ok("v1")
    site.run_ok("prune", "--force")
    assert UNIT in site.running_containers(web1)
    user(web1, f"podman stop --time 0 {UNIT} >/dev/null")
    wait_until(lambda: result(web1)[:1] == ["exit-code"], "the end of the run")
    assert UNIT not in site.containers(web1)

    # A failed run brings the former timers back.
    before = user(web1, "readlink /var/lib/memoryark/jobs/current")
    define(site, schedule="0 4 * * *")
    assert site.deploy("v3-broken")[0] == 1
    assert user(web1, "readlink /var/lib/memoryark/jobs/current") == before
    assert "03:00:00" in user(web1, f"systemctl --user cat {UNIT}.timer")


@pytest.mark.extended
@pytest.mark.hosts(2)
def test_job_on_all_hosts_that_exceeds_its_timeout_is_ended(site: Site, web1: Host) -> None:
    web1.sh("echo 60 > /home/deploy/data/wait")
    define(site, timeout_seconds=2, hosts="all")
    site.deploy_ok("v1")
    assert [timers(host) for host in site.lab.hosts] == [[f"{UNIT}.timer"]] * 2

    code, output = site.run("job.run", "--name", "stamp")

    assert (code, "ended by systemd: timeout" in output) == (1, True), output
    assert output.count("stamp of v1") == 2
    assert UNIT not in site.containers(web1)


@pytest.mark.extended
def test_timer_fires_at_its_minute_and_after_a_boot(site: Site, web1: Host) -> None:
    define(site, schedule="* * * * *")
    site.deploy_ok("v1")
    wait_until(lambda: result(web1)[:1] == ["success"], "the run of the next minute", 90)

    user(web1, f"rm {RESULTS}/*")
    web1.reboot()

    wait_until(lambda: result(web1)[:1] == ["success"], "a run after the boot", 150)
