"""The words of the project as frozen dataclasses and enums. It owns shapes and no behaviour with effects.

Standard library only (Python 3.10+). Three groups: what is wanted (Application, Service, Release), what is on
a host (HostState and its parts), and where the hosts are (Target, Rollout).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import Enum


class Color(str, Enum):
    """One of the two places in which a service's container can run."""

    BLUE = "blue"
    GREEN = "green"

    @property
    def other(self) -> Color:
        """The opposite color."""
        return Color.GREEN if self is Color.BLUE else Color.BLUE


#: What a color adds to a service's stable port to get its own loopback port.
PORT_OFFSET = {Color.BLUE: 10_000, Color.GREEN: 20_000}


class Outcome(str, Enum):
    """How a run ended on one host, as the host's history keeps it."""

    GOOD = "good"
    UNDONE = "undone"
    UNDO_FAILED = "undo-failed"


_IMAGE = re.compile(
    r"(?P<repository>(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::\d{1,5})?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class Image:
    """A reference to a container image: what to pull and, once resolved, its identity."""

    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Image:
        """Read `repository[:tag][@sha256:…]`. Raises ValueError for anything else."""
        match = _IMAGE.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not an image reference")
        return cls(match["repository"], match["tag"] or "", match["digest"] or "")

    @property
    def reference(self) -> str:
        """What people read: `repository:tag`."""
        return f"{self.repository}:{self.tag or 'latest'}"

    @property
    def pinned(self) -> str:
        """What is pulled and run: `repository@sha256:…`. Raises ValueError while the digest is unknown."""
        if not self.digest:
            raise ValueError(f"{self.reference} has no digest yet")
        return f"{self.repository}@{self.digest}"

    def with_tag(self, tag: str) -> Image:
        """The same repository under another tag, its digest unknown again."""
        return Image(self.repository, tag)

    def with_digest(self, digest: str) -> Image:
        """The same reference with its identity."""
        return replace(self, digest=digest)


@dataclass(frozen=True)
class Mount:
    """A host directory inside a container."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Gate:
    """When a candidate counts as healthy.

    `passes` consecutive answers pass it. Failures before `start_period_seconds` are forgiven; after it, `retries`
    consecutive ones fail it, and so does the deadline. A restart or an exit fails it at once.
    """

    path: str = "/health"
    passes: int = 3
    interval_seconds: float = 1.0
    timeout_seconds: float = 5.0
    start_period_seconds: float = 60.0
    retries: int = 3
    deadline_seconds: float = 120.0


@dataclass(frozen=True)
class Drain:
    """How an old color ends: wait until unused or the deadline, then SIGTERM, then SIGKILL after `stop_seconds`."""

    deadline_seconds: float = 15.0
    stop_seconds: float = 10.0


@dataclass(frozen=True)
class Route:
    """A path prefix that Nginx sends to the service; `stream` keeps long-lived answers and upgrades flowing."""

    prefix: str
    stream: bool = False


@dataclass(frozen=True)
class Service:
    """One service of the application as one host runs it, every value resolved."""

    name: str
    image: Image
    container_port: int
    stable_port: int
    gate: Gate = Gate()
    drain: Drain = Drain()
    routes: tuple[Route, ...] = ()
    mounts: tuple[Mount, ...] = ()
    alias: str = ""
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    memory_bytes: int | None = None
    cpus: float | None = None
    restart_policy: str = "on-failure"

    def port(self, color: Color) -> int:
        """The loopback port on which this color is published."""
        return self.stable_port + PORT_OFFSET[color]


@dataclass(frozen=True)
class Probe:
    """One HTTP check: GET `path` on the stable port of `service`, answered 2xx."""

    service: str
    path: str


@dataclass(frozen=True)
class Tls:
    """Where the host keeps its certificate; empty paths mean that the site is plain HTTP."""

    certificate: str
    key: str
    chain: str = ""


@dataclass(frozen=True)
class Application:
    """The application as one host runs it: names, services in upgrade order, data paths, public address."""

    name: str
    environment: str
    domain: str
    services: tuple[Service, ...]
    full_chain: Probe | None = None
    http_port: int = 80
    https_port: int = 443
    tls: Tls | None = None
    max_upload_bytes: int = 100 * 1024**2
    database: str = ""
    database_backups: str = ""
    uploads: str = ""
    uploads_backups: str = ""
    config_path: str = ""
    log_directories: tuple[str, ...] = ()
    backup_retention_days: int = 30
    maintenance: bool = False

    def service(self, name: str) -> Service:
        """The service of that name. Raises KeyError when there is none."""
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)

    @property
    def home(self) -> str:
        """The directory on the host that holds flags, history, lock and journal."""
        return f"/var/lib/{self.name}"


@dataclass(frozen=True)
class Rollout:
    """How a run treats the hosts of an environment, as `hosts.yaml` says."""

    batch: str = "100%"
    parallel: int = 16
    bake_seconds: float = 10.0
    lease_seconds: float = 120.0
    retain_releases: int = 3
    connect_timeout_seconds: float = 10.0
    confirm: bool = False


@dataclass(frozen=True)
class Target:
    """One host of the inventory and the application as it is to run there."""

    name: str
    address: str
    user: str
    application: Application
    port: int = 22
    setup_user: str = "root"
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    jump: str = ""
    identity_file: str = ""


@dataclass(frozen=True)
class Environment:
    """Everything one run needs to know before it contacts anything.

    `secrets` are the values that must never be printed. `warnings` were found while reading.
    """

    name: str
    targets: tuple[Target, ...]
    rollout: Rollout = Rollout()
    known_hosts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)


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
    image: Image = Image("")
    image_id: str = ""
    release: str = ""
    spec: str = ""
    env_fingerprints: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Lock:
    """Who holds a host, why, and until when (Unix seconds on the host's clock)."""

    token: str
    owner: str
    workstation: str
    pid: int
    reason: str
    acquired_at: int
    expires_at: int


@dataclass(frozen=True)
class ServiceRelease:
    """What one service ran in a release."""

    image: str
    digest: str
    color: Color
    spec: str = ""


@dataclass(frozen=True)
class Release:
    """One line of a host's history."""

    id: str
    time: str
    action: str
    outcome: Outcome
    services: tuple[tuple[str, ServiceRelease], ...]
    owner: str = ""
    reason: str = ""
    seconds: float = 0.0

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
    """What one observation of one host found."""

    host: str
    now: int = 0
    facts: tuple[tuple[str, str], ...] = ()
    active: tuple[tuple[str, Color], ...] = ()
    containers: tuple[Container, ...] = ()
    foreign: tuple[str, ...] = ()
    listening: tuple[int, ...] = ()
    releases: tuple[Release, ...] = ()
    lock: Lock | None = None
    site_hash: str = ""
    live_site_hash: str = ""
    probes: tuple[ProbeResult, ...] = ()

    def fact(self, name: str) -> str:
        """A named fact about the host ('' when it was not observed)."""
        return dict(self.facts).get(name, "")

    def active_color(self, service: str) -> Color:
        """The color that the service's flag names; blue without a flag, as Nginx has it."""
        return dict(self.active).get(service, Color.BLUE)

    def container(self, service: str, color: Color) -> Container | None:
        """The container of that service and color, running or not."""
        for container in self.containers:
            if container.service == service and container.color is color:
                return container
        return None

    @property
    def last_good(self) -> Release | None:
        """The newest release in the history that ended well."""
        good = [release for release in self.releases if release.good]
        return good[-1] if good else None


class Phase(str, Enum):
    """What an event says of a step or of a host."""

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    NOTE = "note"


@dataclass(frozen=True)
class Event:
    """Something that happened during a run, `at` Unix seconds. An empty `step` speaks of the whole host, an empty
    `host` of the whole run."""

    at: float
    phase: Phase
    title: str
    host: str = ""
    step: str = ""
    seconds: float = 0.0
    detail: str = ""


class HostResult(str, Enum):
    """Where a host stands when a run has ended."""

    UPGRADED = "upgraded"
    UNCHANGED = "unchanged"
    UNDONE = "undone"
    UNDO_FAILED = "undo-failed"
    NOT_STARTED = "not-started"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class HostSummary:
    """One host's line in the final summary."""

    host: str
    result: HostResult
    seconds: float
    images: tuple[tuple[str, str], ...] = ()
    cause: str = ""


@dataclass(frozen=True)
class Summary:
    """How a run ended: the last thing that a person, a pipe or a CI job reads."""

    action: str
    environment: str
    release: str
    exit_code: int
    seconds: float
    hosts: tuple[HostSummary, ...]
    message: str = ""
    undo_command: str = ""
    warnings: tuple[str, ...] = ()
