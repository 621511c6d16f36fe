"""What is wanted: the application, its services and images, and where its hosts are. Shapes only.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import Enum

from fabfile.model.channels import Channels
from fabfile.model.monitoring import Monitoring
from fabfile.model.pipeline import Pipeline
from fabfile.model.preparation import Preparation
from fabfile.model.watch import WatchRules


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


_IMAGE = re.compile(
    r"(?P<repository>(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class Image:
    """A reference to a container image: what to pull and, once resolved, its identity.

    `revision` is the source revision that the image's own label names, where it has one.
    """

    repository: str
    tag: str = ""
    digest: str = ""
    revision: str = field(default="", compare=False)

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
class Recorded:
    """The identity of a service of an earlier release, whose environment only the host still holds.

    `spec` is the hash of all that made its container besides the image; `env` has a short hash per key.
    """

    spec: str
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Service:
    """One service of the application as one host runs it, every value resolved.

    `recorded` stands in the place of `env` when the service was read from a host's record of a release.
    """

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
    recorded: Recorded | None = None

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
    """Where the host keeps its certificate; `acme` lets an authority's questions through to certbot."""

    certificate: str
    key: str
    chain: str = ""
    acme: bool = False


@dataclass(frozen=True)
class DatabaseServer:
    """A PostgreSQL database that the application uses: its address without the password, and the password."""

    address: str
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class Login:
    """A name and a password at a registry."""

    registry: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Thresholds:
    """Beyond which values a host is not well. Percentages of the whole, ages and offsets in seconds."""

    free_percent: float = 10.0
    memory_percent: float = 90.0
    certificate_days: float = 14.0
    clock_seconds: float = 5.0
    backup_age_seconds: float = 26 * 3600.0


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
    log_files: tuple[str, ...] = ()
    database_server: DatabaseServer | None = field(default=None, repr=False)
    backup_retention_days: int = 30
    auto_backup: bool = False
    backup_calendar: tuple[str, ...] = ()
    maintenance: bool = False
    metrics_dir: str = ""
    request_metrics: bool = False
    login: Login | None = field(default=None, repr=False)
    channels: Channels = field(default=Channels(), repr=False)
    thresholds: Thresholds = Thresholds()
    watch: WatchRules = field(default_factory=WatchRules)

    def service(self, name: str) -> Service:
        """The service of that name. Raises KeyError when there is none."""
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)

    @property
    def log_directories(self) -> tuple[str, ...]:
        """The directories of the log files, each once."""
        return tuple(dict.fromkeys(path.rpartition("/")[0] for path in self.log_files))

    @property
    def home(self) -> str:
        """The directory on the host that holds flags, history, lock and journal."""
        return f"/var/lib/{self.name}"


class Transfer(str, Enum):
    """How images come to the hosts: each host pulls from a registry, or the workstation pushes what a host lacks."""

    PULL = "pull"
    PUSH = "push"


@dataclass(frozen=True)
class Rollout:
    """How a run treats the hosts of an environment, as `hosts.yaml` says; `signed_by` is a key (PEM) or empty."""

    batch: str = "100%"
    parallel: int = 16
    bake_seconds: float = 10.0
    lease_seconds: float = 120.0
    retain_releases: int = 3
    connect_timeout_seconds: float = 10.0
    confirm: bool = False
    transfer: Transfer = Transfer.PULL
    signed_by: str = ""


@dataclass(frozen=True)
class Target:
    """One host of the inventory and the application as it is to run there; `metrics_address` is where it is scraped."""

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
    metrics_address: str = ""


@dataclass(frozen=True)
class Environment:
    """Everything one run needs to know before it contacts anything.

    `secrets` are the values that must never be printed. `warnings` were found while reading. `known_hosts` are the
    files that exist, `trust_file` the one that `inv trust` writes; `access_folder` holds the keys of who may log in.
    """

    name: str
    targets: tuple[Target, ...]
    rollout: Rollout = Rollout()
    preparation: Preparation = field(default_factory=Preparation)
    monitoring: Monitoring = field(default_factory=Monitoring)
    pipeline: Pipeline = field(default_factory=Pipeline)
    known_hosts: tuple[str, ...] = ()
    trust_file: str = ""
    access_folder: str = ""
    warnings: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)
