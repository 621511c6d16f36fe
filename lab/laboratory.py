"""A lab: its network, its hosts, its registry, and the files of its environment.

The state of a lab is the state of the containers with its label. Labs with different names, or of different clones,
share only base images.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lab.base_image import host_image
from lab.environment import make_keys, public_key, write_environment
from lab.files import locked
from lab.host import Host, create, remove
from lab.images import PORT, Registry, publish
from lab.machine import LABEL, Machine, find_machine, labelled, raise_limits
from lab.network import ensure_network, remove_networks
from rolling_upgrade.errors import ConfigError

PROJECT = Path(__file__).resolve().parent.parent
MAXIMUM_HOSTS = 32
_REGISTRY_NUMBER, _FIRST_HOST_NUMBER = 5, 11
_PARALLEL = 4
_TRUST = f'[[registry]]\nlocation = "registry:{PORT}"\ninsecure = true\n'
_REGISTRY_FILES: dict[str, bytes | str] = {
    "/etc/systemd/system/multi-user.target.wants/docker-registry.service": (
        "/usr/lib/systemd/system/docker-registry.service"
    ),
    "/etc/docker/registry/config.yml": (
        b"version: 0.1\nlog: {level: warn, accesslog: {disabled: true}}\n"
        b"storage: {filesystem: {rootdirectory: /var/lib/docker-registry}, delete: {enabled: true}}\n"
        b"http: {addr: ':%d'}\n" % PORT
    ),
}
#: On cgroup v1, systemd in a container does not notice the end of a user's last process, and waits two minutes.
_LEGACY_FILES: dict[str, bytes | str] = {
    "/etc/systemd/system/user@.service.d/lab.conf": b"[Service]\nTimeoutStopSec=5s\n",
}


def _silent(_: str) -> None:
    """Discard a progress message."""


@dataclass(frozen=True)
class HostStatus:
    """One line of `lab.status`."""

    lab: str
    host: str
    role: str
    address: str
    state: str


@dataclass(frozen=True)
class Lab:
    """A running lab. `root` is its directory `.lab/<name>`; its containers and its network are named after `id`."""

    name: str
    id: str
    root: Path
    machine: Machine
    image: str
    registry_image: str
    hosts: tuple[Host, ...]
    registry: Registry

    @property
    def machines(self) -> tuple[Host, ...]:
        """The registry's host and the hosts."""
        return (self.registry.host, *self.hosts)

    def host(self, name: str) -> Host:
        """Return the host with this name. Raises KeyError when there is none."""
        return {host.name: host for host in self.hosts}[name]

    def reset_host(self, name: str) -> Host:
        """Recreate a host with the same address and the same host key."""
        host = self.host(name)
        remove(host)
        self.boot(host)
        host.wait_until_up()
        return host

    def boot(self, host: Host) -> None:
        """Create the host's container if it is missing, and start it."""
        key = self.root / "host_keys" / host.name
        files: dict[str, bytes | str] = {
            "/etc/ssh/ssh_host_ed25519_key": key.read_bytes(),
            "/etc/ssh/ssh_host_ed25519_key.pub": public_key(key).read_bytes(),
            "/etc/ssh/lab_authorized_keys": (self.root / "id_ed25519.pub").read_bytes(),
            "/etc/containers/registries.conf.d/lab.conf": _TRUST.encode(),
        }
        if self.machine.legacy:
            files |= _LEGACY_FILES
        role = "registry" if host == self.registry.host else "host"
        if role == "registry":
            files |= _REGISTRY_FILES
        registry = self.registry.host.address
        image = self.registry_image if role == "registry" else self.image
        create(host, laboratory=self.id, image=image, registry=registry, role=role, files=files)

    def down(self) -> None:
        """Remove the lab: containers, volumes, network and directory."""
        down(self.name, root=self.root.parent.parent)


def up(
    hosts: int = 2,
    release: str = "trixie",
    name: str = "lab",
    *,
    root: Path = PROJECT,
    log: Callable[[str], None] = _silent,
) -> Lab:
    """Start a lab, or repair it after a crash. A running lab is not changed.

    Raises ConfigError for an invalid argument, and PreflightError when this machine cannot run a lab.
    """
    _check(hosts, name)
    machine = find_machine()
    raise_limits(machine, log)
    folder = root / ".lab" / name
    with locked(_identity(root, name)):
        images = host_image(machine, release, log), host_image(machine, release.removesuffix("-bare"), log)
        laboratory = _design(machine, folder, name, hosts, images)
        make_keys(folder, name, [host.name for host in laboratory.machines])
        log(f"Booting {hosts} {release} hosts ({laboratory.hosts[0].address} on) and a registry")
        _boot_all(laboratory)
        publish(laboratory.registry, machine, log)
        registry = laboratory.registry.host
        addresses = {host.name: host.address for host in laboratory.hosts}
        write_environment(folder, name, addresses, {registry.name: registry.address})
    log(f"Lab {name} is up: {', '.join(f'{host.name} {host.address}' for host in laboratory.hosts)}")
    return laboratory


def down(name: str = "lab", *, root: Path = PROJECT, log: Callable[[str], None] = _silent) -> None:
    """Remove everything of a lab in any state. Base images stay cached."""
    _check(1, name)
    machine = find_machine()
    identity = _identity(root, name)
    with locked(identity):
        containers = labelled(machine, "ps", identity)
        if containers:
            machine.remove(*containers)
        listed = machine.podman("volume", "ls", "--format", "{{.Name}}").stdout.split()
        volumes = [volume for volume in listed if volume.startswith(f"{identity}-")]
        if volumes:
            machine.podman("volume", "rm", "--force", *volumes)
        remove_networks(machine, identity)
        shutil.rmtree(root / ".lab" / name, ignore_errors=True)
    log(f"Lab {name} is down: {len(containers)} containers and {len(volumes)} volumes removed")


def status(*, root: Path = PROJECT) -> tuple[HostStatus, ...]:
    """Return the status of every host of every lab of this clone."""
    machine = find_machine()
    listed = json.loads(machine.podman("ps", "--all", "--filter", f"label={LABEL}", "--format", "json").stdout or "[]")
    names = {_identity(root, folder.name): folder.name for folder in (root / ".lab").glob("*") if folder.is_dir()}
    found = [
        HostStatus(
            names[entry["Labels"][LABEL]],
            entry["Labels"]["host"],
            entry["Labels"]["role"],
            entry["Labels"]["address"],
            entry["State"],
        )
        for entry in listed
        if entry["Labels"][LABEL] in names
    ]
    return tuple(sorted(found, key=lambda line: (line.lab, line.role, line.host)))


def _check(hosts: int, name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
        raise ConfigError(f"{name!r} is not a valid lab name.", next_step="--name with letters, digits and hyphens")
    if not 1 <= hosts <= MAXIMUM_HOSTS:
        raise ConfigError(f"A lab cannot have {hosts} hosts.", next_step=f"--hosts 1 to {MAXIMUM_HOSTS}")


def _identity(root: Path, name: str) -> str:
    """Return an id that differs between clones with labs of the same name."""
    return f"{name}-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:6]}"


def _design(machine: Machine, folder: Path, name: str, hosts: int, images: tuple[str, str]) -> Lab:
    """Return the desired lab, on its existing or a new network."""
    identity = _identity(folder.parent.parent, name)
    subnet = ensure_network(machine, identity)

    def host(host_name: str, number: int) -> Host:
        return Host(host_name, str(subnet[number]), f"{identity}-{host_name}", machine)

    hosts_of_lab = tuple(host(f"web{index + 1}", _FIRST_HOST_NUMBER + index) for index in range(hosts))
    return Lab(name, identity, folder, machine, *images, hosts_of_lab, Registry(host("registry", _REGISTRY_NUMBER)))


def _boot_all(laboratory: Lab) -> None:
    """Boot hosts that are not up, remove surplus hosts, and wait for all."""
    names = {host.container for host in laboratory.machines}
    for container in labelled(laboratory.machine, "ps", laboratory.id):
        if container not in names:
            remove(Host(container, "", container, laboratory.machine))

    def boot(host: Host) -> None:
        laboratory.boot(host)
        host.wait_until_up()

    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(boot, laboratory.machines))
    laboratory.registry.wait_until_up()


def shell_command(laboratory: str, host: str, *, root: Path = PROJECT) -> list[str]:
    """Return the `ssh` command that logs in to a lab host. Raises ConfigError if the host is not up."""
    found = [line for line in status(root=root) if line.lab == laboratory and line.host == host]
    if not found or found[0].state != "running":
        up_now = ", ".join(f"{line.lab}/{line.host}" for line in status(root=root)) or "none"
        raise ConfigError(f"No host {host!r} of lab {laboratory!r} is up; there are: {up_now}.", next_step="inv lab.up")
    folder = root / ".lab" / laboratory
    user = "root" if host == "registry" else "deploy"
    options = [
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={folder / 'known_hosts'}",
        "IdentitiesOnly=yes",
    ]
    chosen = [part for option in options for part in ("-o", option)]
    return ["ssh", "-F", "/dev/null", *chosen, "-i", str(folder / "id_ed25519"), f"{user}@{found[0].address}"]


def open_shell(laboratory: str, host: str, *, root: Path = PROJECT) -> int:
    """Open a shell on a lab host, on this terminal. Return its exit code."""
    return subprocess.run(shell_command(laboratory, host, root=root), check=False).returncode
