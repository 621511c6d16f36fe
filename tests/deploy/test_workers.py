"""Workers on a real host: overlapping and exclusive ones, next to services with a port and under the load client.

The workers record their starts and stops themselves. Each holds a lock, and records `overlap` if another one has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab.host import Host
from lab.load import Load, Server
from tests.deploy import moments
from tests.deploy.conftest import DOMAIN, Site, wait_until
from tests.deploy.moments import KILL, Moment, Operation, end_task, newest_run, reach, start

_DATA = "/home/deploy/data"
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
    use(site, "v1")
    site.run_ok("deploy")
    host = site.lab.hosts[0]
    yield host
    host.sh(f"rm -f {_DATA}/*.jsonl {_DATA}/mailer.lock {_DATA}/scheduler.lock")


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


def test_upgrade_undo_and_rollback_under_load(site: Site, web1: Host) -> None:
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


def test_operators_see_a_worker_like_any_other_service(site: Site, web1: Host) -> None:
    checks = {check["name"]: check for check in json.loads(site.run_ok("health", "--json"))["hosts"][0]["checks"]}
    assert (checks["scheduler ready"]["ok"], checks["mailer container"]["ok"]) == (True, True)
    assert "mailer http" not in checks
    assert "scheduler" in site.run_ok("status")
    assert "worker mailer v1 starts" in site.run_ok("logs", "--service", "mailer", "--lines", "5")
    assert "worker.py ready" not in site.run_ok("deploy", "--dry-run")
    web1.sh(
        "podman exec memoryark-scheduler-blue /usr/bin/python3 -c \"import os; os.remove('/tmp/working')\"", "deploy"
    )
    code, output = site.run("health")
    assert (code, "scheduler ready" in output) == (1, True), output


def test_handover_whose_executor_is_killed_is_finished_by_the_next_deploy(site: Site, web1: Host) -> None:
    interrupt_handover(site, web1, 0.5)
    site.run_ok("deploy")
    assert assert_exclusive(web1)[-1] == "start v2"
    site.run_ok("status")


def interrupt_handover(site: Site, host: Host, delay: float, phase: str = "started") -> None:
    """Kill the workstation, the executor and the step of a deploy of v2 during the handover."""
    before = newest_run(host)
    use(site, "v2")
    task = start(site, "deploy")
    reach(host, Moment(DEPLOY, "scheduler.start", phase, delay), before)
    KILL(task)
    host.sh(
        "pkill -KILL -f 'pyz run /var/lib/memoryark'; "
        'for session in /var/lib/memoryark/journal/*/*.session; do pkill -KILL -s "$(cat $session)"; done',
        check=False,
    )
    end_task(task)
