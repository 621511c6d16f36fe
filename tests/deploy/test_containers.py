"""Containers on a real host have only the documented capabilities and limits, and a bounded log."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from lab.host import Host
from tests.deploy.conftest import Site, wait_until

#: CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE as the kernel shows them.
DOCUMENTED = 0x5EB
NET_RAW = 1 << 13
MEGABYTE = 1024**2


def running_container(host: Host, service: str = "backend") -> str:
    """Return the running container of a service."""
    ask = f"podman ps --format '{{{{.Names}}}}' --filter label=rolling.service={service}"
    return host.sh(ask, user="deploy").stdout.split()[0]


def status(host: Host, service: str = "backend") -> dict[str, str]:
    """Return the kernel's status of the container's first process."""
    pid = host.sh(
        f"podman inspect --format '{{{{.State.Pid}}}}' {running_container(host, service)}", user="deploy"
    ).stdout
    rows = host.sh(f"cat /proc/{pid.strip()}/status").stdout.splitlines()
    return {key: value.strip() for key, _, value in (row.partition(":") for row in rows)}


def edit_services(site: Site, service: str, **values: object) -> None:
    """Set keys of one service in services.yaml."""
    with site.edited_services() as content:
        next(entry for entry in content["services"] if entry["name"] == service).update(values)


def effective_user(host: Host) -> str:
    """Return the effective user of a set-user-ID program of root that another user of the container starts."""
    name = running_container(host)
    make = "import os, shutil; shutil.copy('/usr/bin/python3', '/srv/become'); os.chmod('/srv/become', 0o4755)"
    host.sh(f'podman exec {name} python3 -c "{make}"', user="deploy")
    ask = f"podman exec --user 1000 {name} /srv/become -c 'import os; print(os.geteuid())'"
    return host.sh(ask, user="deploy").stdout.strip()


@pytest.mark.parametrize("service", ["backend", "frontend"])
def test_container_has_the_documented_capabilities_and_gains_none(site: Site, service: str) -> None:
    for host in site.lab.hosts:
        process = status(host, service)
        assert {int(process[key], 16) for key in ("CapEff", "CapPrm", "CapBnd")} == {DOCUMENTED}, process
        assert (int(process["CapInh"], 16), int(process["CapAmb"], 16), process["NoNewPrivs"]) == (0, 0, "1")


def test_set_user_id_program_gains_nothing(site: Site) -> None:
    assert effective_user(site.lab.hosts[0]) == "1000"


def test_container_gets_the_limits_and_mounts_of_its_service(site: Site) -> None:
    host = site.lab.hosts[0]
    edit_services(site, "backend", cap_add=["NET_RAW"], cap_drop=["ALL"], no_new_privileges=False, pids_limit=300)
    code, output = site.deploy("v1", "--hosts", host.name)

    process = status(host)
    assert (code, int(process["CapEff"], 16), process["NoNewPrivs"]) == (0, NET_RAW, "0"), output
    assert "the configuration differs" in output
    assert int(status(host, "frontend")["CapEff"], 16) == DOCUMENTED


def test_processes_in_a_container_are_bounded(site: Site) -> None:
    """Rootless Podman cannot enforce the limit on cgroup v1, so that only its option is checked there."""
    host = site.lab.hosts[0]
    name = running_container(host)
    version = host.sh("podman info --format '{{.Host.CgroupsVersion}}'", user="deploy").stdout.strip()
    command = json.loads(
        host.sh(f"podman inspect --format '{{{{json .Config.CreateCommand}}}}' {name}", user="deploy").stdout
    )
    assert command[command.index("--pids-limit") + 1] == "2048"
    if version == "v2":
        bomb = "import threading, time\nfor n in range(4000): threading.Thread(target=time.sleep, args=(5,)).start()"
        done = host.sh(f'podman exec {name} python3 -c "{bomb}"', user="deploy", check=False)
        assert (done.returncode, "can't start new thread" in done.stderr) == (1, True)
        assert site.version(host) == "v1"


@pytest.fixture
def loud(site: Site) -> Iterator[subprocess.Popen[str]]:
    """A backend with a log limit of one megabyte, which prints endlessly. Yields `inv logs --follow`."""
    host = site.lab.hosts[0]
    edit_services(site, "backend", log_max_size="1MB")
    site.deploy_ok("v1", "--hosts", host.name)
    # One line at a time, about eight megabytes per second.
    text = (
        "import itertools\nout = open('/proc/1/fd/1', 'w', buffering=1)\n"
        "for n in itertools.count(): out.write(f'endless {n} ' + 'x' * 900 + chr(10))"
    )
    host.sh(f'podman exec --detach {running_container(host)} python3 -c "{text}"', user="deploy")
    with site.start("logs", "--host", host.name, "--service", "backend", "--follow", "--lines", "1") as following:
        yield following
        following.terminate()
        following.communicate(timeout=30)
    host.sh(f"podman kill {running_container(host)}", user="deploy", check=False)


def test_endless_output_stays_within_the_log_limit(site: Site, loud: subprocess.Popen[str]) -> None:
    host = site.lab.hosts[0]
    path = host.sh(
        f"podman inspect --format '{{{{.HostConfig.LogConfig.Path}}}}' {running_container(host)}", user="deploy"
    ).stdout.strip()
    sizes, rotations = [], 0

    def rotated_twice() -> bool:
        nonlocal rotations
        measured = host.sh(f"cat {path.rpartition('/')[0]}/*.log* | wc -c; du -sb {path.rpartition('/')[0]} | cut -f 1")
        sizes.append(max(int(row) for row in measured.stdout.split()))
        rotations += len(sizes) > 1 and sizes[-1] < sizes[-2]
        return rotations >= 2

    wait_until(rotated_twice, "two rotations of the log", 180)
    assert max(sizes) < 2 * MEGABYTE, sizes

    for words in (("--lines", "5"), ("--since", "1m", "--lines", "5")):
        # Right after a rotation the log has fewer lines than requested.
        def five_lines(words: tuple[str, ...] = words) -> bool:
            output = site.run_ok("logs", "--host", host.name, "--service", "backend", *words)
            assert output.count("endless") <= 5, output[-3000:]
            return output.count("endless") == 5

        wait_until(five_lines, f"five lines of logs {' '.join(words)}", 60)

    numbers: set[int] = set()

    def followed_long_enough() -> bool:
        assert loud.stdout is not None
        row = loud.stdout.readline()
        if "endless" in row:
            numbers.add(int(row.partition("endless ")[2].split()[0]))
        return bool(numbers) and max(numbers) - min(numbers) > 3000

    wait_until(followed_long_enough, "lines across three megabytes of log", 180)


@pytest.mark.extended
def test_rollback_to_a_release_recorded_without_confinement(site: Site) -> None:
    """The restored container has Podman's defaults, as it had before."""
    host = site.lab.hosts[0]
    site.deploy_ok("v2", "--hosts", host.name)
    strip = (
        "import json, pathlib\n"
        "for path in pathlib.Path('/var/lib/memoryark/config').glob('*.json'):\n"
        "    content = json.loads(path.read_text())\n"
        "    for service in content['services']: service.pop('confinement', None)\n"
        "    path.write_text(json.dumps(content))\n"
    )
    host.sh(f'python3 -c "{strip}"', user="deploy")
    host.sh("podman rm $(podman ps -aq --filter status=exited)", user="deploy")

    code, output = site.run("rollback", "--hosts", host.name)

    assert (code, site.version(host), status(host)["NoNewPrivs"]) == (0, "v1", "0"), output
    code, output = site.deploy("v1", "--hosts", host.name, "--force")
    assert (code, site.version(host), status(host)["NoNewPrivs"]) == (0, "v1", "1"), output
