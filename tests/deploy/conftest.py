"""A lab of real hosts per test process, and helpers that run tasks on it as an operator does."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copytree
from typing import Any, TypeVar

import pytest
import yaml

from lab import laboratory
from lab.host import Host, wait_for
from lab.laboratory import Lab
from rolling_upgrade.errors import HostUnreachable
from rolling_upgrade.ssh import fleet
from rolling_upgrade.ssh.fabric_host import FabricHost
from tests.deploy import snapshot
from tests.deploy.fork_server import ForkedTask, fork_server
from tests.deploy.snapshot import Snapshot

pytest.register_assert_rewrite("tests.deploy.moments")

PROJECT = Path(__file__).resolve().parent.parent.parent
DOMAIN = "app.lab.test"
LOCK_FILE = "/var/lib/memoryark/lock/held"
TASK_SECONDS = 240
_RECORD_PODMAN = """\
mv -f /usr/bin/podman /usr/bin/podman.real
install -m 666 /dev/null /var/tmp/podman.calls
cat > /usr/bin/podman <<'END-OF-THE-PROGRAM'
#!/bin/sh
printf '%s\\n' "$(printf '%.60s ' "$@" | tr '\\n' ' ')" >> /var/tmp/podman.calls
exec /usr/bin/podman.real "$@"
END-OF-THE-PROGRAM
chmod 755 /usr/bin/podman"""
#: Keep the journal on disk, as Debian does: each user reads the output of their own units.
KEEP_JOURNAL = """\
mkdir -p /var/log/journal
printf '[Journal]\\nStorage=persistent\\n' > /etc/systemd/journald.conf.d/zz-test.conf
systemctl restart systemd-journald
journalctl --flush"""
#: The snapshot content of each host at the time of its saved disks, by the name of its container.
_prepared: dict[str, str] = {}
#: The containers of the hosts that no test has used since their preparation.
_unused: set[str] = set()
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Site:
    """A lab environment and the tasks on it."""

    lab: Lab
    #: Run each task in a new interpreter, so that /proc shows its own arguments and environment.
    interpreters: bool = False

    @property
    def directory(self) -> Path:
        """The directory with the environment's files."""
        return self.lab.root

    @property
    def env_file(self) -> Path:
        return self.directory / f"{self.lab.name}.env"

    def start(self, *words: str, directory: Path = PROJECT) -> subprocess.Popen[str]:
        """Start a task in a new session, from this clone or another one."""
        return subprocess.Popen(
            [sys.executable, "-m", "invoke", words[0], "--env", self.lab.name, *words[1:]],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "CI": "true"},
            start_new_session=True,
        )

    def run(self, *words: str) -> tuple[int, str]:
        """Run a task. Return its exit code and its output."""
        return (
            wait_for_task(self.start(*words))
            if self.interpreters
            else task(words[0], "--env", self.lab.name, *words[1:])
        )

    def run_ok(self, *words: str) -> str:
        """Run a task that has to succeed. Return its output."""
        return succeeded(self.run(*words))

    def deploy(self, tag: str, *words: str) -> tuple[int, str]:
        return self.run("deploy", "--tag", tag, *words)

    def deploy_ok(self, tag: str, *words: str) -> str:
        """Run a deploy that has to succeed. Return its output."""
        return succeeded(self.deploy(tag, *words))

    @contextmanager
    def setup_with(self, host: Host, **values: str) -> Iterator[None]:
        """Run setup on one host with changed settings, and with the previous ones at the end."""
        before = self.env_file.read_text()
        self.edit_env(**values)
        try:
            self.run_ok("setup", "--hosts", host.name)
            yield
        finally:
            self.env_file.write_text(before)
            code, output = self.run("setup", "--hosts", host.name)
        assert code == 0, output

    def versions(self) -> list[str]:
        """The backend version that each host serves to visitors."""
        return [self.version(host) for host in self.lab.hosts]

    def version(self, host: Host, domain: str = DOMAIN) -> str:
        """The backend version that one host serves to visitors."""
        return str(json.loads(http_request(host, "/api/version", domain=domain)[1])["version"])

    def serves(self, host: Host, version: str) -> bool:
        """Return whether visitors of the host get this version."""
        try:
            return self.version(host) == version
        except (OSError, ValueError, http.client.HTTPException):
            return False

    def containers(self, host: Host) -> dict[str, bool]:
        """Return each container of the host, and whether it is running."""
        listed = json.loads(host.sh("podman ps -a --format json", user="deploy").stdout)
        return {entry["Names"][0]: entry["State"] == "running" for entry in listed}

    def running_containers(self, host: Host) -> list[str]:
        return [name for name, running in self.containers(host).items() if running]

    def running_container(self, host: Host, service: str = "backend") -> str:
        """Return the running container of a service."""
        return next(name for name in self.running_containers(host) if service in name)

    def edit_env(self, **values: str) -> None:
        """Change keys of the env file."""
        kept = [line for line in self.env_file.read_text().splitlines() if line.partition("=")[0] not in values]
        self.env_file.write_text("\n".join([*kept, *(f"{key}={value}" for key, value in values.items())]) + "\n")

    @contextmanager
    def edited_services(self) -> Iterator[dict[str, Any]]:
        """Yield the content of services.yaml for changes, then write it back."""
        path = self.directory / "services.yaml"
        content = yaml.safe_load(path.read_text())
        yield content
        path.write_text(yaml.safe_dump(content, sort_keys=False))

    @contextmanager
    def _edited_environment(self) -> Iterator[dict[str, Any]]:
        """Yield the environment's entry in hosts.yaml for changes, then write it back."""
        path = self.directory / "hosts.yaml"
        content = yaml.safe_load(path.read_text())
        yield content["environments"][self.lab.name]
        path.write_text(yaml.safe_dump(content))

    def edit_environment(self, **values: object) -> None:
        """Set keys of the environment in hosts.yaml."""
        with self._edited_environment() as entry:
            entry |= values

    def edit_rollout(self, **values: object) -> None:
        """Set keys of the environment's rollout in hosts.yaml."""
        with self._edited_environment() as entry:
            entry["rollout"] |= values

    def edit_hosts(self, **hosts: Mapping[str, object]) -> None:
        """Set keys of hosts in hosts.yaml."""
        with self._edited_environment() as entry:
            for name, values in hosts.items():
                entry["hosts"][name] |= values

    def keep_hosts(self) -> None:
        """Remove the hosts that are not in `lab.hosts` from hosts.yaml."""
        names = {host.name for host in self.lab.hosts}
        with self._edited_environment() as entry:
            entry["hosts"] = {name: values for name, values in entry["hosts"].items() if name in names}

    @contextmanager
    def unchanged_files(self) -> Iterator[None]:
        """Undo all changes of the environment's files at the end."""
        files = {path: path.read_bytes() for path in self.directory.iterdir() if path.is_file()}
        try:
            yield
        finally:
            for path in self.directory.iterdir():
                if path.is_file() and path not in files:
                    path.unlink()
            for path, content in files.items():
                path.write_bytes(content)

    def copy(self, name: str, *, hosts: tuple[str, ...] = ("web1",), **entry: object) -> Site:
        """Copy the files to an environment with another name, these hosts, and these keys in hosts.yaml."""
        directory = self.directory.with_name(name)
        copytree(self.directory, directory, dirs_exist_ok=True)
        environment = yaml.safe_load((directory / "hosts.yaml").read_text())["environments"][self.lab.name]
        environment |= {"env_file": f"{name}.env", **entry}
        environment["hosts"] = {host: environment["hosts"][host] for host in hosts}
        (directory / "hosts.yaml").write_text(yaml.safe_dump({"environments": {name: environment}}))
        (directory / f"{self.lab.name}.env").rename(directory / f"{name}.env")
        return Site(replace(self.lab, name=name, root=directory))


def task(*words: str) -> tuple[int, str]:
    """Run a task of this project. Return its exit code and its output."""
    return wait_for_task(fork_server().start(words, PROJECT, {**os.environ, "CI": "true"}))


def succeeded(result: tuple[int, str]) -> str:
    """Return the output of a task that has to exit with 0."""
    code, output = result
    assert code == 0, output
    return output


def wait_for_task(process: subprocess.Popen[str] | ForkedTask) -> tuple[int, str]:
    """Return the exit code and the output of a task. It is killed after TASK_SECONDS."""
    try:
        output, _ = process.communicate(timeout=TASK_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode is not None
    return process.returncode, output


def http_request(
    host: Host,
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    *,
    domain: str = DOMAIN,
    port: int = 80,
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    """Send one request over a new connection. Return the status and the body of the response."""
    with closing(http.client.HTTPConnection(host.address, port, timeout=20)) as connection:
        connection.request(method, path, body, {"Host": domain, **(headers or {})})
        response = connection.getresponse()
        return response.status, response.read()


@contextmanager
def recorded_podman(host: Host) -> Iterator[list[str]]:
    """Yield a list that gets the arguments of each `podman` that any program of the host starts during the block.

    The process that a rootless Podman starts in its namespace does not count. The containers that start during the
    block name `podman.real` as the program that cleans up after them, so that name stays.
    """
    host.sh(_RECORD_PODMAN)
    calls: list[str] = []
    try:
        yield calls
    finally:
        host.sh("mv -f /usr/bin/podman.real /usr/bin/podman && ln -s podman /usr/bin/podman.real")
        calls += host.sh("cat /var/tmp/podman.calls && rm /var/tmp/podman.calls").stdout.splitlines()


def hold_lock(host: Host) -> None:
    """Lock the host as a run of eve@elsewhere would."""
    owner = ("token=x", "owner=eve", "workstation=elsewhere", "pid=1", "reason=upgrade")
    lines = (*owner, "acquired_at=1", "expires_at=9999999999")
    host.sh(f"printf '%s\\n' {' '.join(lines)} > {LOCK_FILE}", user="deploy")


def add_service(site: Site, name: str, port: int) -> None:
    """Add a service with the frontend's image, v2, on this service port and under /NAME/."""
    with site.edited_services() as content:
        frontend = next(service for service in content["services"] if service["name"] == "frontend")
        content["services"].append(
            frontend
            | {
                "name": name,
                "image": f"{name.upper()}_IMAGE",
                "port": f"{name.upper()}_PORT",
                "default_port": port,
                "routes": [{"prefix": f"/{name}/"}],
                "alias": name,
                "limits": {},
            }
        )
    site.edit_env(**{f"{name.upper()}_IMAGE": "registry:5000/memoryark/frontend:v2", f"{name.upper()}_PORT": str(port)})


def fingerprint(host: Host) -> str:
    """Return everything on a host that a task could change: containers, images, files with their hashes, units."""
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


def local_address(host: Host) -> str:
    """Return the address at which the host reaches this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host.address, 9))
        return str(probe.getsockname()[0])


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60, *, pause: float = 0.2) -> None:
    """Poll a condition every `pause` seconds until it holds: each look at a host starts about ten processes."""
    wait_for(lambda: bool(condition()), seconds, what, pause=pause)


def interrupt(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    """Send a signal to a task. Return its exit code and its output."""
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=TASK_SECONDS)
    return process.returncode, output


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a task as a power cut of the workstation does: no handler runs."""
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def wait_for_end_of_run(host: Host) -> None:
    """Wait until the host has ended the run that its workstation left."""
    wait_until(lambda: host.sh(f"test -e {LOCK_FILE}", check=False).returncode != 0, "the end of the run", 120)


def start_until_step(site: Site, step: str, *words: str, directory: Path = PROJECT) -> subprocess.Popen[str]:
    """Start a task on the first host alone. Return once it runs the step there."""
    host = site.lab.hosts[0]
    newest = "cd /var/lib/memoryark/journal && ls -d */ 2>/dev/null | sort | tail -n 1"
    before = host.sh(newest).stdout
    process = site.start(*words, "--hosts", host.name, directory=directory)

    def runs_the_step() -> bool:
        run = host.sh(newest).stdout
        session = f"/var/lib/memoryark/journal/{run.strip()}/{step}.session"
        return run != before and host.sh(f"test -e {session}", check=False).returncode == 0

    wait_until(runs_the_step, f"the step {step}", pause=0.05)
    return process


def shorten_waits(site: Site) -> None:
    """Shorten the gates and drains of the lab's services."""
    with site.edited_services() as content:
        for service in content["services"]:
            service["gate"] |= {"interval_seconds": 0.3, "passes": 2, "deadline_seconds": 20}
            service["drain"] = {"deadline_seconds": 0, "stop_seconds": 5}
    site.edit_rollout(bake_seconds=0)
    site.edit_env(HEALTH_CHECK_START_PERIOD="4s", HEALTH_CHECK_RETRIES="3")


@pytest.fixture(scope="session")
def worker_lab(worker_id: str) -> Iterator[Lab]:
    """Two hosts and a registry for this test process."""
    name = f"deploy-{worker_id}"
    laboratory.down(name)
    yield laboratory.up(2, name=name)
    laboratory.down(name)


@pytest.fixture(scope="module")
def module_site(worker_lab: Lab) -> Site:
    """Hosts after `inv setup` and a deploy of v1. A host that the earlier modules have not used boots only once."""
    if saved := all(host.is_saved() for host in worker_lab.hosts):
        used = [host for host in worker_lab.hosts if host.container not in _unused]
        _unused.clear()
        on_each(used, Host.restore)
    else:
        on_each(worker_lab.hosts, lambda host: worker_lab.reset_host(host.name))
    site = Site(laboratory.up(2, name=worker_lab.name))
    shorten_waits(site)
    if not saved:
        site.run_ok("setup")
        site.deploy_ok("v1")
        on_each(worker_lab.hosts, Host.save)
    wait_until(lambda: all(all(site.containers(host).values()) for host in worker_lab.hosts), "every container")
    wait_until(lambda: all(site.serves(host, "v1") for host in worker_lab.hosts), "v1 on every host")
    for host, state in zip(worker_lab.hosts, on_each(worker_lab.hosts, snapshot.take), strict=True):
        _prepared[host.container] = state.content
        _unused.add(host.container)
    return site


@pytest.fixture(scope="module")
def prepared_site(module_site: Site) -> Site:
    """The prepared hosts. The tests of a module share them, and must leave them healthy."""
    _unused.difference_update(host.container for host in module_site.lab.hosts)
    return module_site


def on_each(hosts: Iterable[S], do: Callable[[S], T]) -> list[T]:
    """Call a function for all hosts at once."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(do, hosts))


@pytest.fixture
def site(module_site: Site, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The first prepared host on v1, or the first N with the mark `hosts(N)`, restored after the test."""
    mark = request.node.get_closest_marker("hosts")
    hosts = module_site.lab.hosts[: mark.args[0] if mark else 1]
    _unused.difference_update(host.container for host in hosts)
    chosen = replace(module_site, lab=replace(module_site.lab, hosts=hosts))
    with restored(chosen):
        chosen.keep_hosts()
        yield chosen


@contextmanager
def restored(site: Site) -> Iterator[None]:
    """Restore the site's files and v1 after the test, so that tests pass in any order.

    A host whose snapshot cannot be restored boots from its saved disks, if they hold the same state. Otherwise it gets
    a deploy of v1, which has to succeed.
    """
    hosts, before = site.lab.hosts, on_each(site.lab.hosts, snapshot.take)
    on_each(zip(hosts, before, strict=True), lambda pair: snapshot.save_files(*pair))
    with site.unchanged_files():
        yield
    done = on_each(zip(hosts, before, strict=True), lambda pair: _restore(site, *pair))
    failed = [host for host, restored in zip(hosts, done, strict=True) if not restored]
    if not failed:
        return
    code, output = site.deploy("v1", "--hosts", ",".join(host.name for host in failed))
    assert code == 0, f"a deploy cannot repair the state in which the test left the site:\n{output}"
    on_each(failed, snapshot.remove_stopped_containers)


def _restore(site: Site, host: Host, before: Snapshot) -> bool:
    """Restore the snapshot of a host if its state differs. Return whether the host has its earlier state now."""
    if snapshot.take(host).exact == before.exact:
        return True
    if not snapshot.restore(host, before):
        if before.content != _prepared.get(host.container):
            return False
        host.restore()
        wait_until(lambda: all(site.containers(host).values()), "every container")
        if snapshot.take(host).content != before.content:
            return False
    with suppress(HostUnreachable):
        wait_until(lambda: site.serves(host, "v1"), "v1", 20)
        return True
    return False


@pytest.fixture
def fabric_hosts(monkeypatch: pytest.MonkeyPatch) -> list[FabricHost]:
    """The SSH clients that tasks of this process create, with their counts of connections and executions."""
    created: list[FabricHost] = []

    class Recorded(FabricHost):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[arg-type]
            created.append(self)

    monkeypatch.setattr(fleet, "FabricHost", Recorded)
    return created
