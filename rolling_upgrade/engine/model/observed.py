"""The observed state of a host: containers, lock, history, probes.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from rolling_upgrade.engine.model.application import Color, Image


class Outcome(str, Enum):
    """The outcome of a run on one host, in the history of the host."""

    GOOD = "good"
    UNDONE = "undone"
    UNDO_FAILED = "undo-failed"


@dataclass(frozen=True)
class Container:
    """A container of the application as Podman reports it."""

    name: str
    service: str
    color: Color
    running: bool
    status: str
    started_at: str = ""
    restarts: int = 0
    exit_code: int = 0
    image: Image = field(default_factory=lambda: Image(""))
    image_id: str = ""
    release: str = ""
    spec: str = ""
    service_port: int = field(default=0, metadata={"key": "stable_port"})

    @property
    def stopping(self) -> bool:
        """Whether the container is stopping and still holds its port.

        Source: Podman, libpod/define/containerstate.go: "stopping" until the process ends, "stopped" until its network
        is released, "exited" after that.
        """
        return self.status in {"stopping", "stopped"}


@dataclass(frozen=True)
class Lock:
    """The holder of a host's lock, its reason, and the end of its lease (Unix seconds on the host's clock).

    `target` is the release that a rollback takes the host to, so that the next rollback can finish one that died; ''
    for every other run. `key` and `client` are the fingerprint of the SSH key and the address, as seen by the host.
    """

    token: str
    owner: str
    workstation: str
    pid: int
    reason: str
    acquired_at: int
    expires_at: int
    target: str = ""
    key: str = ""
    client: str = ""


@dataclass(frozen=True)
class ServiceRelease:
    """One service of a release; `revision` is the source revision in the label of the image."""

    image: str
    digest: str
    color: Color
    spec: str = ""
    revision: str = ""


@dataclass(frozen=True)
class Release:
    """One line of a host's history.

    `target` is the destination of the run (a release, a backup), `left` the release that a rollback left. `key` and
    `client` are the operator's SSH key and address as seen by the host, `workstation` is the operator's machine, and
    `revision` the commit of the clone that started the run.
    """

    id: str
    time: str
    action: str
    outcome: Outcome
    services: tuple[tuple[str, ServiceRelease], ...]
    owner: str = ""
    reason: str = ""
    seconds: float = 0.0
    target: str = ""
    left: str = ""
    workstation: str = ""
    revision: str = ""
    key: str = ""
    client: str = ""

    @property
    def content(self) -> frozenset[tuple[str, str, str]]:
        """The services with digests and specs, without colors: to visitors, releases with equal content are equal."""
        return frozenset((name, run.digest, run.spec) for name, run in self.services)

    @property
    def good(self) -> bool:
        """Whether the release passed its gate, its verification and its bake."""
        return self.outcome is Outcome.GOOD


@dataclass(frozen=True)
class ProbeResult:
    """The answer to one probe."""

    name: str
    url: str
    ok: bool
    detail: str
    milliseconds: int = 0


@dataclass(frozen=True)
class HostState:
    """The observed state of one host; `environments` has the marks of engine/env_changes.py by directory."""

    host: str
    now: int = 0
    facts: tuple[tuple[str, str], ...] = ()
    active: tuple[tuple[str, Color], ...] = ()
    containers: tuple[Container, ...] = ()
    foreign: tuple[str, ...] = ()
    listening: tuple[int, ...] = ()
    releases: tuple[Release, ...] = ()
    lock: Lock | None = None
    site: str = ""
    live_site_hash: str = ""
    probes: tuple[ProbeResult, ...] = ()
    environments: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = field(default=(), repr=False)

    def environment(self, service: str, spec: str) -> dict[str, str] | None:
        """Return the keyed hashes of a service's environment with that spec; None if the host has none."""
        marks = dict(self.environments).get(f"{service}-{spec}")
        return None if marks is None else dict(marks)

    def fact(self, name: str) -> str:
        """A fact about the host by name; "" if it was not observed."""
        return dict(self.facts).get(name, "")

    def active_color(self, service: str) -> Color:
        """The color that the service's flag names; blue without a flag."""
        return dict(self.active).get(service, Color.BLUE)

    def container(self, service: str, color: Color) -> Container | None:
        """The container of that service and color, running or not."""
        for container in self.containers:
            if container.service == service and container.color is color:
                return container
        return None

    @property
    def held_lock(self) -> Lock | None:
        """The lock of the host while its lease lasts."""
        return self.lock if self.lock is not None and self.lock.expires_at > self.now else None

    @property
    def last_good(self) -> Release | None:
        """The newest good release in the history."""
        good = [release for release in self.releases if release.good]
        return good[-1] if good else None


class Kind(str, Enum):
    """The subject of a check."""

    CONTAINER = "container"
    HTTP = "http"
    DATABASE = "database"
    DISK = "disk"
    MEMORY = "memory"
    CERTIFICATE = "certificate"
    CLOCK = "clock"
    BACKUP = "backup"


@dataclass(frozen=True)
class Check:
    """One check of a host; `name` is the same in every report and unique within one.

    `answered` says whether an HTTP check got any answer at all, even a bad one.
    """

    kind: Kind
    name: str
    ok: bool
    detail: str
    service: str = ""
    milliseconds: int = 0
    answered: bool = True


@dataclass(frozen=True)
class HealthReport:
    """The checks of one host, and its observed state: containers, flags, lock and maintenance page.

    `certificate_ends` is the expiry of the certificate for visitors in Unix seconds; None without one.
    """

    state: HostState
    checks: tuple[Check, ...]
    certificate_ends: int | None = None

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.ok)
