"""Runs that meet another run, a changed host, another version of this program, a damaged engine, or a jumping clock.

All but the last pair run under the strict load client.
"""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from shutil import copytree

import pytest

from lab.host import Host
from lab.load import Load, Server
from tests.deploy import moments
from tests.deploy.conftest import DOMAIN, PROJECT, TASK_SECONDS, Site, start_until_step, wait_until
from tests.deploy.moments import agree, end_task, start, wait_for_end
from tests.deploy.test_watchdog_clock import CLOCK

pytestmark = pytest.mark.extended

#: Changes the time that the programs of a run read, in each SSH session; the monotonic clock stays.
_FAKE_CLOCK = f"""\
LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1
FAKETIME_TIMESTAMP_FILE={CLOCK}
FAKETIME_NO_CACHE=1
FAKETIME_DONT_FAKE_MONOTONIC=1
FAKETIME_ONLY_CMDS=python3,date
"""


@contextmanager
def strict_load(hosts: tuple[Host, ...]) -> Iterator[None]:
    """Load the hosts. No request may fail, and no write may be lost."""
    with Load([Server(host.name, host.address, 80) for host in hosts], DOMAIN, moments.LOAD) as load:
        wait_until(lambda: load.progress.requests > 0, "the load", pause=0.1)
        yield
        result = load.stop()
    assert [str(record) for record in result.failures] == []
    assert (result.lost, result.writes_acknowledged > 0) == ((), True)


@pytest.mark.hosts(2)
@pytest.mark.parametrize("number", range(6))
def test_two_deploys_of_different_tags_at_once_never_mix(site: Site, number: int) -> None:
    """One of them gets all hosts, or one runs after the other."""
    hosts = site.lab.hosts
    pause = Random(f"{moments.SEED} {number}").uniform(0, 1.5) if number else 0.0  # noqa: S311
    print(f"{pause:.3f} s between the starts, MOMENTS_SEED={moments.SEED}")
    before = {host.name: agree(site, host) for host in hosts}
    with strict_load(hosts):
        tasks = {"v2": start(site, "deploy", "--tag", "v2", "--force")}
        with pytest.raises(subprocess.TimeoutExpired):
            tasks["v2"].wait(pause)
        tasks["v3"] = start(site, "deploy", "--tag", "v3", "--force")
        ends = {tag: end_task(task) for tag, task in tasks.items()}
        now = {host.name: agree(site, host) for host in hosts}
    done = {tag for tag, (code, _) in ends.items() if code == 0}
    assert done
    assert all(code in {0, 4} for code, _ in ends.values()), ends
    assert all("locked by" in output for code, output in ends.values() if code == 4), ends
    added = [now[name].history[len(before[name].history) :] for name in now]
    recorded = [[line["services"]["backend"]["image"].rpartition(":")[2] for line in lines] for lines in added]  # type: ignore[index]
    assert [set(tags) for tags in recorded] == [done, done]
    assert recorded[0] == recorded[1]
    assert {state.tag for state in now.values()} == {recorded[0][-1]}


class Prompt:
    """A task whose operator has a terminal, and does not answer yet."""

    def __init__(self, site: Site, *words: str) -> None:
        self._terminal, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "invoke", words[0], "--env", site.lab.name, *words[1:]],
            cwd=PROJECT,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "CI": "true"},
            start_new_session=True,
        )
        os.close(theirs)
        self.shown = b""
        assert self._process.stdout is not None
        while b"[y/N]" not in self.shown:
            piece = os.read(self._process.stdout.fileno(), 4096)
            assert piece, self.shown.decode()
            self.shown += piece

    def confirm(self) -> tuple[int, str]:
        """Answer yes. Return the exit code and the output after the answer."""
        os.write(self._terminal, b"y\n")
        output, _ = self._process.communicate(timeout=TASK_SECONDS)
        os.close(self._terminal)
        return self._process.returncode, output.decode()


def test_deploy_on_a_host_that_changed_before_its_lock_shows_and_executes_a_new_plan(site: Site) -> None:
    host = site.lab.hosts[0]
    site.edit_rollout(confirm=True)
    with strict_load((host,)):
        waiting = Prompt(site, "deploy", "--tag", "v2")
        site.deploy_ok("v3", "--force")
        code, output = waiting.confirm()
        now = agree(site, host)
    assert (code, now.tag) == (0, "v2"), output
    assert "the host changed after it was observed; a new plan was made" in output
    assert re.search(r"backend +v1 .*→ v2", waiting.shown.decode())
    assert re.search(r"backend +v3 .*→ v2", output), output


def test_rollback_on_a_host_that_changed_before_its_lock_records_the_release_that_it_left(site: Site) -> None:
    """Otherwise a later rollback could return to the release from which this one rolled back."""
    host = site.lab.hosts[0]
    site.deploy_ok("v2")
    site.edit_rollout(confirm=True)
    with strict_load((host,)):
        waiting = Prompt(site, "rollback")
        site.deploy_ok("v3", "--force")
        left = agree(site, host).history[-1]["id"]
        code, output = waiting.confirm()
        now = agree(site, host)
    assert (code, now.tag) == (0, "v1"), output
    assert now.history[-1]["left"] == left, output
    assert f"--to {left}" in output or "--to v3" in output, output


@pytest.fixture
def other_version(tmp_path: Path) -> Path:
    """A clone of this project with another version of the engine, and the same labs."""
    for name in ("rolling_upgrade", "templates", "fabfile", "lab"):
        copytree(PROJECT / name, tmp_path / name)
    for name in ("tasks.py", "hosts.yaml"):
        (tmp_path / name).write_bytes((PROJECT / name).read_bytes())
    (tmp_path / ".lab").symlink_to(PROJECT / ".lab")
    module = tmp_path / "rolling_upgrade/engine/executor.py"
    module.write_text(module.read_text() + "\nANOTHER_VERSION = True\n")
    return tmp_path


def test_deploy_that_meets_the_run_of_another_version_names_it_and_attach_follows_it(
    site: Site, other_version: Path
) -> None:
    host = site.lab.hosts[0]
    site.edit_rollout(bake_seconds=8)
    engines = "ls /var/lib/memoryark/engine"
    before = set(host.sh(engines).stdout.split())
    with strict_load((host,)):
        process = start_until_step(site, "backend.cutover", "deploy", "--tag", "v2", directory=other_version)
        code, refused = site.deploy("v3")
        assert (code, "locked by" in refused, "deploy v2" in refused) == (4, True, True), refused
        code, followed = site.run("attach")
        assert (code, "web1 upgraded" in followed) == (0, True), followed
        output, _ = process.communicate(timeout=TASK_SECONDS)
        assert (process.returncode, agree(site, host).tag) == (0, "v2"), output
        site.deploy_ok("v3")
        assert agree(site, host).tag == "v3"
    assert len(set(host.sh(engines).stdout.split()) - before) == 1


def test_deploy_with_a_damaged_engine_on_the_host_is_refused_and_the_next_one_brings_a_sound_engine(site: Site) -> None:
    """Other files beside it do not matter."""
    host = site.lab.hosts[0]
    damage = """\
cd /var/lib/memoryark/engine
for file in *.pyz; do head -c 1000 "$file" > damaged && mv damaged "$file"; done
echo garbage > 0000000000000000000000000000000000000000000000000000000000000000.pyz
mkdir -p directory.pyz"""
    host.sh(damage, user="deploy")
    before = agree(site, host)
    with strict_load((host,)):
        code, output = site.deploy("v2")
        assert (code, "the engine on the host is damaged" in output) == (3, True), output
        assert agree(site, host) == before
        site.deploy_ok("v2")
        assert agree(site, host).tag == "v2"


@contextmanager
def changeable_clock(host: Host) -> Iterator[None]:
    """Let the programs of new SSH sessions read the time from a file, which jumps. This machine's clock stays."""
    host.sh(f"cp -p /etc/environment /root/environment 2>/dev/null || : > /root/environment; echo +0 > {CLOCK}")
    host.sh(f"cat >> /etc/environment <<'END'\n{_FAKE_CLOCK}END\nchmod 0644 {CLOCK}")
    try:
        yield
    finally:
        host.sh(f"cp -p /root/environment /etc/environment; rm -f {CLOCK}")


def _jump(host: Host, offset: str) -> None:
    host.sh(f"echo {offset} > {CLOCK}.new && mv {CLOCK}.new {CLOCK}")


@pytest.mark.parametrize("offset", ["+3d", "-3d", "+40s"])
@pytest.mark.parametrize("step", ["backup", "backend.cutover", "verify"])
def test_deploy_whose_host_changes_its_clock_is_completed(site: Site, step: str, offset: str) -> None:
    host = site.lab.hosts[0]
    site.edit_rollout(lease_seconds=30, bake_seconds=2)
    with changeable_clock(host), strict_load((host,)):
        process = start_until_step(site, step, "deploy", "--tag", "v2")
        _jump(host, offset)
        output, _ = process.communicate(timeout=TASK_SECONDS)
        assert (process.returncode, agree(site, host).tag) == (0, "v2"), output
        times = [json.loads(line)["event"]["at"] for line in _events(host) if '"event"' in line]
        assert max(times) - min(times) > 35, "the clock of the run has not jumped"


def _events(host: Host) -> list[str]:
    run = moments.newest_run(host)
    return host.sh(f"cat {moments.APP}/journal/{run}/events.jsonl").stdout.splitlines()


def test_run_whose_lease_seems_to_end_by_a_clock_jump_gives_way_to_the_next_run(site: Site) -> None:
    """The second run takes the lock over and completes; the first one stops at its next step. Nothing mixes."""
    host = site.lab.hosts[0]
    site.edit_rollout(lease_seconds=30, bake_seconds=6)
    with changeable_clock(host), strict_load((host,)):
        process = start_until_step(site, "verify", "deploy", "--tag", "v2")
        last = moments.newest_run(host)
        _jump(host, "+3d")
        code, output = site.deploy("v3", "--force")
        first, _ = process.communicate(timeout=TASK_SECONDS)
        assert (code, process.returncode) == (0, 4), (output, first)
        wait_for_end(host, last)
        assert agree(site, host).tag == "v3"
