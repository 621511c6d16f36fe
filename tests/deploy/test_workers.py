"""Workers on a real host: overlapping and exclusive ones, next to services with a port and under the load client.

The workers record their starts and stops themselves. Each holds a lock, and records `overlap` if another one has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

import pytest

from lab.host import Host
from lab.load import Load, Server
from tests.deploy import moments
from tests.deploy.conftest import DOMAIN, Site, wait_until
from tests.deploy.moments import (
    CANCEL,
    KILL,
    Moment,
    Operation,
    end_task,
    newest_run,
    reach,
    read_run,
    start,
    wait_for_end,
)
from tests.deploy.test_watchdog import wait_for_log

_DATA = "/home/deploy/data"
_CLEAN = f"rm -f {_DATA}/*.jsonl {_DATA}/mailer.lock {_DATA}/scheduler.lock"
_IMAGE = "registry:5000/memoryark/backend"
#: The steps of a deploy that hands the exclusive worker over.
_STEPS = (
    *("backend.start", "frontend.start", "mailer.start", "scheduler.start", "scheduler.cutover"),
    *("backend.cutover", "frontend.cutover", "mailer.cutover", "verify"),
)
DEPLOY = Operation("deploy", ("lock", "backup", "pull"), _STEPS, ("drain", "record"))


def declare(name: str, **values: object) -> dict[str, object]:
    """Return the declaration of a worker in services.yaml."""
    return {
        "name": name,
        "image": f"{name.upper()}_IMAGE",
        "entrypoint": ["/usr/bin/python3", "/srv/worker.py"],
        "command": name,
        "mounts": [{"source": "DATABASE_PATH", "parent": True, "target": "/app/data"}],
        "env": ["DATABASE_PATH"],
        "gate": {"interval_seconds": 0.3, "passes": 2, "deadline_seconds": 20, "running_seconds": 1},
        "drain": {"deadline_seconds": 0, "stop_seconds": 5},
        **values,
    }


@pytest.fixture
def web1(site: Site) -> Iterator[Host]:
    """The first host, with an overlapping worker that only has to run, and an exclusive one with a check."""
    with site.edited_services() as content:
        ready = {"command": "/usr/bin/python3 /srv/worker.py ready"}
        content["services"] += [declare("mailer"), declare("scheduler", ready=ready, handoff="exclusive")]
    host = site.lab.hosts[0]
    # The workers of an earlier test have recorded their stop.
    host.sh(_CLEAN)
    use(site, "v1")
    site.run_ok("deploy")
    yield host
    host.sh(_CLEAN)


def use(site: Site, tag: str, **tags: str) -> None:
    """Set the tag of each image."""
    chosen = {"backend": tag, "mailer": tag, "scheduler": tag, **tags}
    images = {f"{name.upper()}_IMAGE": f"{_IMAGE}:{of}" for name, of in chosen.items()}
    site.edit_env(**images, FRONTEND_IMAGE=f"registry:5000/memoryark/frontend:{tag}")


def events(host: Host, name: str) -> list[str]:
    """Return what a worker recorded: `EVENT VERSION`."""
    lines = host.sh(f"cat {_DATA}/{name}.jsonl").stdout.splitlines()
    return ["{event} {version}".format(**json.loads(line)) for line in lines]


def assert_exclusive(host: Host) -> list[str]:
    """Assert that two schedulers never ran at the same time, and one runs now. Return what they recorded."""
    found = events(host, "scheduler")
    assert not [event for event in found if event.startswith("overlap")], found
    listed = host.sh("podman ps --format '{{.Names}}' --filter label=rolling.service=scheduler", user="deploy").stdout
    assert len(listed.split()) == 1, listed
    return found


def assert_operators_see_workers(site: Site, host: Host) -> None:
    """Assert that the tasks for operators treat a worker like any other service."""
    checks = {check["name"]: check for check in json.loads(site.run_ok("health", "--json"))["hosts"][0]["checks"]}
    assert (checks["scheduler ready"]["ok"], checks["mailer container"]["ok"]) == (True, True)
    assert "mailer http" not in checks
    assert "scheduler" in site.run_ok("status")
    assert "worker mailer v1 starts" in site.run_ok("logs", "--service", "mailer", "--lines", "5")
    assert "memoryark-mailer-blue" in site.run_ok("inspect", "--service", "mailer")
    working = "podman exec memoryark-scheduler-blue /usr/bin/python3 -c 'import os; os.{}'"
    host.sh(working.format('rename("/tmp/working", "/tmp/pausing")'), user="deploy")
    code, output = site.run("health")
    assert (code, "scheduler ready" in output) == (1, True), output
    host.sh(working.format('rename("/tmp/pausing", "/tmp/working")'), user="deploy")


def test_upgrade_undo_and_rollback_under_load(site: Site, web1: Host) -> None:
    assert_operators_see_workers(site, web1)
    with Load([Server("web1", web1.address, 80)], DOMAIN, moments.LOAD) as load:
        wait_until(lambda: load.progress.requests > 50, "the load", pause=0.1)
        use(site, "v2")
        output = site.run_ok("deploy")
        assert "scheduler is exclusive: blue stops before green starts" in output
        assert assert_exclusive(web1) == ["start v1", "stop v1", "start v2"]
        assert events(web1, "mailer")[:3] == ["start v1", "overlap v2", "start v2"]

        use(site, "v2", scheduler="never-healthy")
        code, output = site.run("deploy")
        assert code == 1, output
        assert "scheduler: green stopped" not in output
        assert "failed its health gate" in output
        assert "worker scheduler never-healthy starts" in output
        assert assert_exclusive(web1)[3:] == ["stop v2", "start never-healthy", "stop never-healthy", "start v2"]

        site.run_ok("rollback")
        assert assert_exclusive(web1)[7:] == ["stop v2", "start v1"]
        result = load.stop()
    assert [str(record) for record in result.failures] == []
    assert (result.lost, result.writes_acknowledged > 0) == ((), True)


def interrupt_handover(site: Site, host: Host, delay: float, phase: str = "started") -> str:
    """Kill the workstation, the executor and the step of a deploy of v2 in the handover. Return the id of the run."""
    before = newest_run(host)
    use(site, "v2")
    task = start(site, "deploy")
    reach(host, Moment(DEPLOY, "scheduler.start", phase, delay), before, then=_KILL_RUN)
    KILL(task)
    host.sh(_KILL_RUN)
    end_task(task)
    return newest_run(host)


#: Kills the executor of a run, and its steps with all their processes. The containers stay.
_KILL_RUN = """\
pkill -KILL -f '[p]yz run /var/lib/memoryark'
for session in /var/lib/memoryark/journal/*/*.session; do pkill -KILL -s "$(cat "$session")"; done
true"""


def test_handover_whose_executor_is_killed_is_finished_by_the_next_deploy(site: Site, web1: Host) -> None:
    run = read_run(web1, interrupt_handover(site, web1, 0.4))
    assert ("scheduler.start" in run.started, "scheduler.start" in run.done, run.result) == (True, False, "")
    site.run_ok("deploy")
    assert assert_exclusive(web1)[-1] == "start v2"
    site.run_ok("status")


@pytest.mark.extended
@pytest.mark.parametrize("number", range(8))
def test_handover_that_is_killed_at_any_moment_never_runs_two(site: Site, web1: Host, number: int) -> None:
    """The next run is a deploy of v2, or one of v1, to which the flag still points."""
    delay = Random(f"{moments.SEED} handover {number}").uniform(0, 1.6)  # noqa: S311
    print(f"{delay:.3f} s after the start of the handover, MOMENTS_SEED={moments.SEED}")
    interrupt_handover(site, web1, delay)
    tag = ("v1", "v2")[number % 2]
    use(site, tag)
    site.run_ok("deploy")
    assert assert_exclusive(web1)[-1] == f"start {tag}"
    site.run_ok("status")


@pytest.mark.extended
@pytest.mark.parametrize("delay", [0.15, 0.5, 1.0])
def test_power_cut_in_a_handover_is_undone_at_boot(site: Site, web1: Host, delay: float) -> None:
    before = newest_run(web1)
    use(site, "v2")
    task = start(site, "deploy")
    reach(web1, Moment(DEPLOY, "scheduler.start", "started", delay), before)
    KILL(task)
    web1.power_cut()
    end_task(task)
    run = wait_for_end(web1, before)
    assert run is not None
    assert run.result in {"undone", "upgraded"}, run
    wait_until(lambda: site.run("status")[0] == 0, "the application after the boot", 60)
    expected = "v1" if run.result == "undone" else "v2"
    assert assert_exclusive(web1)[-1] == f"start {expected}"


@pytest.mark.extended
def test_cancelled_handover_starts_the_old_worker_again(site: Site, web1: Host) -> None:
    before = newest_run(web1)
    use(site, "v2")
    task = start(site, "deploy")
    reach(web1, Moment(DEPLOY, "scheduler.start", "started", 0.3), before)
    CANCEL(task)
    code, output = end_task(task)
    assert code != 0, output
    assert assert_exclusive(web1)[-1] == "start v1"


@pytest.mark.extended
def test_worker_that_exits_at_once_fails_its_gate_with_its_last_log_lines(site: Site, web1: Host) -> None:
    use(site, "v2", mailer="exits-at-once")
    code, output = site.run("deploy")
    assert (code, "fatal: a required setting is missing" in output) == (1, True), output
    assert assert_exclusive(web1) == ["start v1"]
    assert events(web1, "mailer") == ["start v1"]


@pytest.mark.extended
def test_watchdog_recovers_workers(site: Site, web1: Host) -> None:
    site.edit_env(HEALTH_CHECK_INTERVAL="1s", HEALTH_CHECK_TIMEOUT="3s", HEALTH_CHECK_RETRIES="2", FRESH_RELEASE="0")
    site.run_ok("monitor.install", "--hosts", "web1")
    remove = "podman exec memoryark-scheduler-blue /usr/bin/python3 -c \"import os; os.remove('/tmp/working')\""
    web1.sh(remove, user="deploy")
    wait_for_log(web1, "restart scheduler: done")
    web1.sh("podman stop -t 1 memoryark-mailer-blue", user="deploy")
    wait_for_log(web1, "restart mailer: done")
    site.run_ok("monitor.uninstall", "--hosts", "web1")
    assert set(assert_exclusive(web1)) == {"start v1", "stop v1"}
    site.run_ok("status")


@pytest.mark.extended
def test_restore_stops_and_starts_workers(site: Site, web1: Host) -> None:
    site.run_ok("backup")
    backup = json.loads(site.run_ok("backups", "--json"))["hosts"][0]["backups"][-1]["id"]
    site.run_ok("restore", backup)
    assert assert_exclusive(web1) == ["start v1", "stop v1", "start v1"]
    assert events(web1, "mailer") == ["start v1", "stop v1", "start v1"]


@pytest.mark.extended
def test_exclusive_service_with_a_port_pauses_and_returns(site: Site) -> None:
    host = site.lab.hosts[0]
    with site.edited_services() as content:
        content["services"][0]["handoff"] = "exclusive"
    output = site.deploy_ok("v2")
    assert "backend is exclusive: blue stops before green starts; visitors get errors in between" in output
    assert (site.version(host), site.running_container(host)) == ("v2", "memoryark-backend-green")
    code, output = site.deploy("never-healthy")
    assert (code, site.version(host), site.running_container(host)) == (1, "v2", "memoryark-backend-green"), output
    site.run_ok("rollback")
    assert (site.version(host), site.running_container(host)) == ("v1", "memoryark-backend-blue")
    site.run_ok("status")
