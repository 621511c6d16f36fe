"""The release command of a deploy on real hosts: once per run, before any new container, and never left behind."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from lab.host import Host
from tests.deploy.conftest import LOCK_FILE, Site, kill, start_until_step, wait_for_end_of_run, wait_until

#: Writes a line to the data, then waits while the data has the file `hold`.
MIGRATE = """\
import os, pathlib, time
data = pathlib.Path(os.environ["DATABASE_PATH"]).parent
with (data / "migrations").open("a") as file: file.write(os.environ["VERSION"] + "\\n")
print("migrating to", os.environ["VERSION"], flush=True)
while (data / "hold").exists(): time.sleep(0.1)
print("migrated", flush=True)
"""
DATA = "/home/deploy/data"
ONE_OFF = "memoryark-backend-release"


def declare(site: Site, *command: str) -> None:
    """Set the release command."""
    with site.edited_services() as content:
        content["release"] = {"service": "backend", "command": list(command), "entrypoint": [], "timeout_seconds": 60}


@pytest.fixture(autouse=True)
def clean_data(site: Site) -> Iterator[None]:
    """Remove the files of the command."""
    yield
    for host in site.lab.hosts:
        host.sh(f"rm -f {DATA}/migrations {DATA}/hold")


def migrations(host: Host) -> list[str]:
    """Return the version of each migration that has run on the host."""
    return host.sh(f"cat {DATA}/migrations 2>/dev/null || :").stdout.split()


def colors(site: Site, host: Host) -> list[str]:
    """Return the containers of a host that serve or could serve; the release command is none of them."""
    names = site.containers(host)
    assert ONE_OFF not in names
    return sorted(names)


@pytest.mark.hosts(2)
def test_release_command_runs_once_before_the_starts_and_its_failure_starts_nothing(site: Site) -> None:
    first, second = site.lab.hosts
    declare(site, "python3", "-c", MIGRATE)
    plan = site.run_ok("deploy", "--tag", "v2", "--dry-run")
    assert plan.count("# release: run the release command in a new container of backend") == 1

    output = site.deploy_ok("v2")

    assert (migrations(first), migrations(second)) == (["v2"], [])
    shown = re.findall(r"web1 +release  \| (.*)", output)
    assert [line for line in shown if "migrat" in line] == ["migrating to v2", "migrated"]
    assert output.index("release  done") < min(
        output.index(f"{name}.start  started") for name in ("backend", "frontend")
    )
    assert (site.versions(), "warning: web1" in output) == (["v2", "v2"], False)
    before = [colors(site, host) for host in site.lab.hosts]

    declare(site, "sh", "-c", "echo 'column exists' >&2; exit 3")
    code, output = site.deploy("v3")

    assert (code, site.versions()) == (1, ["v2", "v2"]), output
    assert re.search(r"web1 +undone", output), output
    assert re.search(r"web2 +not-started", output), output
    assert "column exists" in output
    assert re.search(r"the backup taken before it is (\S+); .* restore \1 --env \S+ --hosts web1", output, re.I), output
    assert "backend.start" not in output.partition("release  started")[2]
    assert [colors(site, host) for host in site.lab.hosts] == before
    assert [host.sh(f"test -e {LOCK_FILE}", check=False).returncode for host in site.lab.hosts] == [1, 1]


def test_release_command_whose_workstation_is_killed_is_completed_with_its_deploy_by_the_host(site: Site) -> None:
    host = site.lab.hosts[0]
    declare(site, "python3", "-c", MIGRATE)
    host.sh(f"touch {DATA}/hold && chmod 666 {DATA}/hold")

    process = start_until_step(site, "release", "deploy", "--tag", "v2")
    wait_until(lambda: migrations(host) == ["v2"], "the release command")
    kill(process)
    host.sh(f"rm {DATA}/hold")
    wait_for_end_of_run(host)

    assert (site.version(host), migrations(host)) == ("v2", ["v2"])
    assert len(colors(site, host)) == 4
    assert "deploy  good" in site.run_ok("history", "--limit", "1")


@pytest.mark.extended
def test_release_command_of_a_killed_executor_does_not_stay_and_runs_again_with_the_next_deploy(site: Site) -> None:
    host = site.lab.hosts[0]
    declare(site, "python3", "-c", MIGRATE)
    host.sh(f"touch {DATA}/hold && chmod 666 {DATA}/hold")
    before = colors(site, host)

    process = start_until_step(site, "release", "deploy", "--tag", "v2")
    wait_until(lambda: migrations(host) == ["v2"], "the release command")
    # The leader of the step's session is a child of the executor.
    host.sh("kill -KILL $(ps -o ppid= -p $(cat /var/lib/memoryark/journal/*/release.session))")
    output, _ = process.communicate(timeout=120)

    assert (process.returncode, site.version(host), colors(site, host)) == (1, "v1", before), output
    assert "restore" in output
    assert not host.sh("pgrep -u deploy -f 'import os, pathlib, time'", check=False).stdout

    host.sh(f"rm {DATA}/hold")
    output = site.deploy_ok("v2", "--hosts", "web1")
    assert (site.version(host), migrations(host)) == ("v2", ["v2", "v2"]), output
