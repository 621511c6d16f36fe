"""One upgrade by each tool, as an operator starts it, and the same steps by hand on the host."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import by_hand
from benchmarks.distance import Endpoints
from benchmarks.peers import commands
from benchmarks.peers.application import Deployment, upstreams
from benchmarks.peers.comparison import Upgrade
from benchmarks.program import run_task
from benchmarks.ssh_log import count
from lab.laboratory import PROJECT, Lab
from rolling_upgrade.engine.shell import quote

_SSH_CONFIG = """\
Host {name}
    HostName {address}
    Port {port}
    User deploy
    IdentityFile {root}/id_ed25519
    IdentitiesOnly yes
    UserKnownHostsFile {root}/known_hosts
    StrictHostKeyChecking yes
"""


@dataclass(frozen=True)
class Tool:
    """A tool that upgrades an application, and the same steps by hand. Both take the version to upgrade to."""

    name: str
    deployment: Deployment
    upgrade: Callable[[str], object]
    by_hand: Callable[[str], float]

    def measure_by_hand(self) -> float:
        """Upgrade by hand and return the seconds. Raises SystemExit unless it is proved."""
        with _proved(self.deployment, f"{self.name} by hand") as version:
            return self.by_hand(version)

    def measure(self, rtt: int, by_hand: float) -> Upgrade:
        """Upgrade and return what it took. Raises SystemExit unless it is proved."""
        with _proved(self.deployment, self.name) as version:
            started_at, clock = time.time(), time.monotonic()
            self.upgrade(version)
            wall = time.monotonic() - clock
        return Upgrade(self.name, rtt, wall, by_hand, count(self.deployment.host, started_at))


@contextmanager
def _proved(deployment: Deployment, who: str) -> Iterator[str]:
    """Yield the version to upgrade to, and check the state after the upgrade. Raises SystemExit."""
    before = deployment.observe()
    version = before.next_version
    yield version
    fault = deployment.observe().fault(before, version)
    if fault:
        raise SystemExit(f"{who}: the upgrade to {version} is not proved: {fault}")


def tools(lab: Lab, programs: Mapping[str, Path]) -> tuple[Tool, ...]:
    """Return this product, Ansible and pyinfra. `programs` are the directories of the other tools' programs."""
    own = Deployment(lab.hosts[0], "memoryark", "app.lab.test")
    others = Deployment(lab.hosts[0], "peers", commands.SITE["domain"])
    name = lab.hosts[0].name
    return (
        Tool(
            "this product",
            own,
            lambda version: run_task(lab, "deploy", "--tag", version, "--force"),
            lambda version: by_hand.deploy(lab, [name], version),
        ),
        Tool(
            "Ansible",
            others,
            lambda version: _ansible(lab, programs["ansible"], version),
            lambda version: upgrade_by_hand(lab, version),
        ),
        Tool(
            "pyinfra",
            others,
            lambda version: _pyinfra(lab, programs["pyinfra"], version),
            lambda version: upgrade_by_hand(lab, version),
        ),
    )


def upgrade_by_hand(lab: Lab, version: str) -> float:
    """Run the commands of the upgrade on the host, one after the other. Return the seconds by the host's clock."""
    host = by_hand.DirectHost(lab.hosts[0])
    active, idle = commands.colors(lab.hosts[0].sh(f"cat {commands.UPSTREAMS}").stdout)
    services = commands.SERVICES
    return by_hand.run_timed(
        host,
        [
            *(commands.pull(service, version) for service in services),
            *(commands.start(service, idle, version) for service in services),
            *(commands.wait_until_healthy(service, idle) for service in services),
            f"printf %s {quote(upstreams(idle))} | sudo tee {commands.UPSTREAMS} >/dev/null",
            "sudo nginx -t",
            "sudo systemctl reload nginx",
            *(commands.wait_until_switched(service, version) for service in services),
            commands.stop(active),
        ],
    )


def write_ssh_config(lab: Lab, endpoints: Endpoints) -> None:
    """Write the route to the host, which Ansible and pyinfra share. This product reads it in its inventory."""
    blocks = [
        _SSH_CONFIG.format(name=name, address=address, port=port, root=lab.root)
        for name, (address, port) in endpoints.items()
    ]
    _ssh_config(lab).write_text("".join(blocks))


def _ssh_config(lab: Lab) -> Path:
    return lab.root / "ssh_config"


def _ansible(lab: Lab, programs: Path, version: str) -> None:
    """Run the playbook. Its connection is new and ends with it, as those of the other tools."""
    name, config = lab.hosts[0].name, str(_ssh_config(lab))
    with TemporaryDirectory(prefix="peers-") as place:
        settings = {
            "ANSIBLE_CONFIG": str(commands.DIRECTORY / "ansible.cfg"),
            "ANSIBLE_HOME": place,
            "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{place}/cp",
        }
        words = ["--inventory", f"{name},", "--ssh-common-args", f"-F {config}", "--extra-vars", f"version={version}"]
        try:
            playbook = str(commands.DIRECTORY / "playbook.yaml")
            _run(programs / "ansible-playbook", *words, playbook, directory=Path(place), settings=settings)
        finally:
            for socket in Path(place, "cp").glob("*"):
                end = ["ssh", "-F", config, "-o", f"ControlPath={socket}", "-O", "exit", name]
                subprocess.run(end, capture_output=True, check=False)


def _pyinfra(lab: Lab, programs: Path, version: str) -> None:
    data = {"version": version, "ssh_config_file": _ssh_config(lab), "ssh_strict_host_key_checking": "yes"}
    words = [word for key, value in data.items() for word in ("--data", f"{key}={value}")]
    words += [f"@ssh/{lab.hosts[0].name}", str(commands.DIRECTORY / "deploy.py")]
    _run(programs / "pyinfra", "--yes", *words, directory=lab.root, settings={"PYTHONPATH": str(PROJECT)})


def _run(program: Path, *words: str, directory: Path, settings: Mapping[str, str]) -> None:
    """Run a program in a directory that takes what it leaves behind. Raises SystemExit when it fails."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", **settings}
    done = subprocess.run(
        [program, *words],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{program.name} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
