"""A lab of real hosts per test process, and the tasks run on it as a person would type them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from lab import laboratory
from lab.host import Host, wait_for
from lab.laboratory import Lab
from rolling_upgrade.errors import HostUnreachable
from tests.deploy.forking import Forked, forker
from tests.deploy.putting_back import State, bring_back, forget_others, keep, look

PROJECT = Path(__file__).resolve().parent.parent.parent
DOMAIN = "app.lab.test"
TASK_SECONDS = 240
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Site:
    """A lab environment and the tasks on it."""

    lab: Lab
    #: Each task is an interpreter of its own, so that /proc shows its own arguments and environment.
    interpreters: bool = False

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
        return ended(self.start(*words)) if self.interpreters else task(words[0], "--env", self.lab.name, *words[1:])

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

    def serves(self, host: Host, version: str) -> bool:
        """Whether a visitor of the host gets this version."""
        try:
            return self.version(host) == version
        except (OSError, ValueError, http.client.HTTPException):
            return False

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


def task(*words: str) -> tuple[int, str]:
    """Run a task of this project to its end: exit code and everything it said."""
    return ended(forker().start(words, PROJECT, {**os.environ, "CI": "true"}))


def ended(process: subprocess.Popen[str] | Forked) -> tuple[int, str]:
    """The exit code of a task and everything it said; one that takes too long is killed."""
    try:
        output, _ = process.communicate(timeout=TASK_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode is not None
    return process.returncode, output


def add_service(site: Site, name: str, port: int) -> None:
    """A further service of the frontend's image, v2, on the given service port and under /NAME/."""
    path = site.folder / "services.yaml"
    services = yaml.safe_load(path.read_text())
    added = next(service for service in services["services"] if service["name"] == "frontend") | {
        "name": name,
        "image": f"{name.upper()}_IMAGE",
        "port": f"{name.upper()}_PORT",
        "default_port": port,
        "routes": [{"prefix": f"/{name}/"}],
        "alias": name,
        "limits": {},
    }
    services["services"].append(added)
    path.write_text(yaml.safe_dump(services, sort_keys=False))
    site.edit_env(**{f"{name.upper()}_IMAGE": "registry:5000/memoryark/frontend:v2", f"{name.upper()}_PORT": str(port)})


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
    """Shorten the waits of the lab's services: the tests prove the order of events, not patience."""
    path = site.folder / "services.yaml"
    services = yaml.safe_load(path.read_text())
    for service in services["services"]:
        service["gate"] |= {"interval_seconds": 0.3, "passes": 2, "deadline_seconds": 20}
        service["drain"] = {"deadline_seconds": 0, "stop_seconds": 5}
    path.write_text(yaml.safe_dump(services, sort_keys=False))
    site.edit_rollout(bake_seconds=0)
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
    """Hosts as `inv setup` and a deploy of v1 leave fresh ones; a module shares them and keeps them healthy."""
    lab = lab_of_this_process
    if known := all(host.is_saved() for host in lab.hosts):
        on_each(lab.hosts, Host.restore)
    else:
        on_each(lab.hosts, lambda host: lab.reset_host(host.name))
    site = Site(laboratory.up(2, name=lab.name))
    make_quick(site)
    if not known:
        for words in (("setup",), ("deploy", "--tag", "v1")):
            code, output = site.run(*words)
            assert code == 0, output
        on_each(lab.hosts, Host.save)
    wait_until(lambda: all(all(site.running(host).values()) for host in lab.hosts), "every container after the boot")
    wait_until(lambda: all(site.serves(host, "v1") for host in lab.hosts), "v1 on every host")
    return site


def on_each(hosts: Iterable[S], do: Callable[[S], T]) -> list[T]:
    """Do something on all hosts at once."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(do, hosts))


@pytest.fixture
def site(prepared: Site) -> Iterator[Site]:
    """The prepared site on v1 with its files as they were, put back after the test."""
    with put_back(prepared):
        yield prepared


@contextmanager
def put_back(site: Site) -> Iterator[None]:
    """The site's files and v1 as they were, whatever the test did: tests hold in any order.

    Where the hosts cannot be brought back to what they were before the test, a deploy has to mend what it left.
    """
    files = {path: path.read_bytes() for path in site.folder.iterdir() if path.is_file()}
    hosts, before = site.lab.hosts, on_each(site.lab.hosts, look)
    on_each(zip(hosts, before, strict=True), lambda pair: keep(*pair))
    yield
    for path, content in files.items():
        path.write_bytes(content)
    if all(on_each(zip(hosts, before, strict=True), lambda pair: _as_it_was(site, *pair))):
        return
    code, output = site.deploy("v1")
    assert code == 0, f"the test left the site in a state that a deploy does not mend:\n{output}"
    on_each(hosts, forget_others)


def _as_it_was(site: Site, host: Host, before: State) -> bool:
    """Whether a host is what it was before the test, if need be because it was brought back."""
    if look(host).exact == before.exact:
        return True
    if not bring_back(host, before):
        return False
    with suppress(HostUnreachable):
        wait_until(lambda: site.serves(host, "v1"), "v1", 20)
        return True
    return False
