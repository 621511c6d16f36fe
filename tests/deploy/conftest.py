"""A lab of real hosts per test process, and the tasks run on it as a person would type them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import laboratory
from lab.host import Host, wait_for
from lab.laboratory import Lab

PROJECT = Path(__file__).resolve().parent.parent.parent
DOMAIN = "app.lab.test"
TASK_SECONDS = 240


@dataclass(frozen=True)
class Site:
    """A lab environment and the tasks on it."""

    lab: Lab

    @property
    def folder(self) -> Path:
        """Where the environment's files lie."""
        return self.lab.root

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Begin a task in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "invoke", words[0], "--env", self.lab.name, *words[1:]],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "CI": "true"},
            start_new_session=True,
        )

    def run(self, *words: str) -> tuple[int, str]:
        """Run a task to its end: exit code and everything it said."""
        process = self.start(*words)
        output, _ = process.communicate(timeout=TASK_SECONDS)
        return process.returncode, output

    def deploy(self, tag: str, *words: str) -> tuple[int, str]:
        """`inv deploy` of a tag."""
        return self.run("deploy", "--tag", tag, *words)

    @contextmanager
    def reshaped(self, host: Host, **values: str) -> Iterator[None]:
        """The site of one host under other names, ports or certificates: setup changes and puts them back."""
        path = self.folder / f"{self.lab.name}.env"
        before = path.read_text()
        self.edit_env(**values)
        try:
            code, output = self.run("setup", "--hosts", host.name)
            assert code == 0, output
            yield
        finally:
            path.write_text(before)
            code, output = self.run("setup", "--hosts", host.name)
        assert code == 0, output

    def versions(self) -> list[str]:
        """What a visitor of each host gets from the backend."""
        return [self.version(host) for host in self.lab.hosts]

    def version(self, host: Host, domain: str = DOMAIN) -> str:
        """What a visitor of one host gets from the backend."""
        connection = http.client.HTTPConnection(host.address, 80, timeout=10)
        try:
            connection.request("GET", "/api/version", headers={"Host": domain})
            return str(json.loads(connection.getresponse().read())["version"])
        finally:
            connection.close()

    def running(self, host: Host) -> dict[str, bool]:
        """Each container of the host and whether it runs."""
        listed = json.loads(host.sh("podman ps -a --format json", user="deploy").stdout)
        return {entry["Names"][0]: entry["State"] == "running" for entry in listed}

    def edit_env(self, **values: str) -> None:
        """Change keys of the env file."""
        path = self.folder / f"{self.lab.name}.env"
        kept = [line for line in path.read_text().splitlines() if line.partition("=")[0] not in values]
        path.write_text("\n".join([*kept, *(f"{key}={value}" for key, value in values.items())]) + "\n")

    @contextmanager
    def _environment(self) -> Iterator[dict[str, Any]]:
        """The environment's entry in hosts.yaml, written back as it is left."""
        path = self.folder / "hosts.yaml"
        content = yaml.safe_load(path.read_text())
        yield content["environments"][self.lab.name]
        path.write_text(yaml.safe_dump(content))

    def edit_environment(self, **values: object) -> None:
        """Set keys of the environment in hosts.yaml."""
        with self._environment() as entry:
            entry |= values

    def edit_rollout(self, **values: object) -> None:
        """Change how a run treats the hosts."""
        with self._environment() as entry:
            entry["rollout"] |= values

    def edit_hosts(self, **environments: object) -> None:
        """Set each host's entry beyond its address."""
        with self._environment() as entry:
            for name, values in environments.items():
                entry["hosts"][name] |= values


def fingerprint(host: Host) -> str:
    """Everything on a host that a task could change: containers, images, files with their hashes, units."""
    as_user = """
podman ps -a --format '{{.ID}} {{.Names}} {{.State}}'
podman images --digests -q
"""
    as_root = """
find /etc/nginx /etc/sudoers.d /usr/local /var/lib/memoryark /etc/systemd/user /home/deploy \\
  -path '*/.local/share/containers' -prune -o -path '*/data' -prune -o -type f -print | sort | xargs sha256sum
systemctl list-units --all --type=service --no-legend --plain |
  awk '{ print $1 }' | grep -v -e user- -e session -e '^user@'
"""
    return host.sh(as_user, user="deploy").stdout + host.sh(as_root).stdout


def own_address(host: Host) -> str:
    """This machine's address as the host reaches it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((host.address, 9))
        return str(one.getsockname()[0])


def wait_until(condition: object, what: str, seconds: float = 60) -> None:
    """Wait for a condition, never for a time."""
    assert callable(condition)
    wait_for(condition, seconds, what)


def interrupt(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    """Send a signal to a task and wait for its end."""
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=TASK_SECONDS)
    return process.returncode, output


def kill(process: subprocess.Popen[str]) -> None:
    """Pull the workstation's plug: no handler runs."""
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def begun(site: Site, step: str, *words: str) -> subprocess.Popen[str]:
    """Start a task on the first host alone and return once it runs the step there."""
    host = site.lab.hosts[0]
    newest = "cd /var/lib/memoryark/journal && ls -d */ 2>/dev/null | sort | tail -n 1"
    before = host.sh(newest).stdout
    process = site.start(*words, "--hosts", host.name)

    def runs() -> bool:
        run = host.sh(newest).stdout
        place = f"/var/lib/memoryark/journal/{run.strip()}/{step}.session"
        return run != before and host.sh(f"test -e {place}", check=False).returncode == 0

    wait_until(runs, f"the step {step}")
    return process


def make_quick(site: Site) -> None:
    """The shipped services with short waits: what is proved is the order of things, not patience."""
    services = yaml.safe_load((PROJECT / "deploy" / "services.yaml").read_text())
    for service in services["services"]:
        service["gate"] |= {"interval_seconds": 0.3, "passes": 2, "deadline_seconds": 20}
        service["drain"] = {"deadline_seconds": 2, "stop_seconds": 5}
    (site.folder / "services.yaml").write_text(yaml.safe_dump(services, sort_keys=False))
    site.edit_environment(services_file="services.yaml")
    site.edit_rollout(bake_seconds=1)
    site.edit_env(HEALTH_CHECK_START_PERIOD="4s", HEALTH_CHECK_RETRIES="3")


@pytest.fixture(scope="session")
def lab_of_this_process(worker_id: str) -> Iterator[Lab]:
    """Two hosts and a registry, taken away at the end."""
    name = f"deploy-{worker_id}"
    laboratory.down(name)
    yield laboratory.up(2, name=name)
    laboratory.down(name)


@pytest.fixture(scope="module")
def prepared(lab_of_this_process: Lab) -> Site:
    """Fresh hosts, prepared by `inv setup`, running v1; one for all tests of a module, which leave it healthy."""
    lab = lab_of_this_process
    for host in lab.hosts:
        lab.reset_host(host.name)
    site = Site(laboratory.up(2, name=lab.name))
    make_quick(site)
    code, output = site.run("setup")
    assert code == 0, output
    code, output = site.deploy("v1")
    assert code == 0, output
    return site


@pytest.fixture
def site(prepared: Site) -> Iterator[Site]:
    """The prepared site on v1 with its files as they were, put back after the test."""
    with put_back(prepared):
        yield prepared


@contextmanager
def put_back(site: Site) -> Iterator[None]:
    """The site's files and v1 as they were, whatever the test did: tests hold in any order."""
    files = {path: path.read_bytes() for path in site.folder.iterdir() if path.is_file()}
    yield
    for path, content in files.items():
        path.write_bytes(content)
    code, output = site.deploy("v1")
    assert code == 0, f"the test left the site in a state that a deploy does not mend:\n{output}"
