"""The desired state: the application with its services and images.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import Enum

from rolling_upgrade.engine.model.notice import Channels


@dataclass(frozen=True)
class Confinement:
    """The limits of a container: capabilities, number of processes, size of its log.

    `cap_drop` names capabilities that Podman or Docker grant by default and common images do not need. An entrypoint
    that runs as root needs the others to prepare its files and to change to its user: CHOWN, DAC_OVERRIDE, FOWNER,
    KILL, NET_BIND_SERVICE, SETGID, SETPCAP and SETUID. Capabilities are dropped by name, not added to an empty set: an
    added one also reaches processes of other users, which otherwise have none.
    """

    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ("AUDIT_WRITE", "FSETID", "MKNOD", "NET_RAW", "SETFCAP", "SYS_CHROOT")
    no_new_privileges: bool = True
    pids_limit: int = 2048
    log_driver: str = "k8s-file"
    log_max_bytes: int = 50 * 1024**2


class Color(str, Enum):
    """One of the two slots in which a service's container can run."""

    BLUE = "blue"
    GREEN = "green"

    @property
    def other(self) -> Color:
        """The opposite color."""
        return Color.GREEN if self is Color.BLUE else Color.BLUE


#: The distance of a color's candidate port from the service port.
PORT_OFFSET = {Color.BLUE: 10_000, Color.GREEN: 20_000}


_IMAGE = re.compile(
    r"(?P<repository>(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class WatchRules:
    """The thresholds at which the watchdog starts a recovery and gives up.

    `failures` consecutive failed checks start a recovery; as many successful ones end the failure. There are at most
    `limit` recoveries within `window_seconds`. The watchdog rolls back a release younger than `fresh_seconds` if a
    restart did not help. With `enabled` false, it checks and alerts but changes nothing.
    """

    enabled: bool = True
    interval_seconds: float = 30.0
    failures: int = 3
    limit: int = 3
    window_seconds: float = 600.0
    fresh_seconds: float = 600.0


@dataclass(frozen=True)
class Image:
    """A reference to a container image and, once resolved, its digest.

    `revision` is the source revision in the label of the image, if there is one.
    """

    repository: str
    tag: str = ""
    digest: str = ""
    revision: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str) -> Image:
        """Read `repository[:tag][@sha256:…]`. Raises ValueError."""
        match = _IMAGE.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not an image reference")
        return cls(match["repository"], match["tag"] or "", match["digest"] or "")

    @property
    def reference(self) -> str:
        """The reference for people: `repository:tag`."""
        return f"{self.repository}:{self.tag or 'latest'}"

    @property
    def pinned(self) -> str:
        """The reference to pull and run: `repository@sha256:…`. Raises ValueError while the digest is unknown."""
        if not self.digest:
            raise ValueError(f"{self.reference} has no digest yet")
        return f"{self.repository}@{self.digest}"

    @property
    def exact(self) -> str:
        """The reference by digest if that is known, else by tag."""
        return self.pinned if self.digest else self.reference

    def with_tag(self, tag: str) -> Image:
        """The same repository under another tag, without a digest."""
        return Image(self.repository, tag)

    def with_digest(self, digest: str) -> Image:
        """The same reference with a digest."""
        return replace(self, digest=digest)


def short_digest(digest: str) -> str:
    """Return the first twelve digits of a digest, as Podman shows it."""
    return digest.removeprefix("sha256:")[:12]


@dataclass(frozen=True)
class Mount:
    """A host directory inside a container."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Gate:
    """The health gate of a candidate.

    `passes` consecutive successful answers pass it. Failures before `start_period_seconds` do not count; after it,
    `retries` consecutive ones fail the gate, and so does the deadline. A restart or an exit fails it at once.
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
    """How an old color stops: connections end or the deadline passes, then SIGTERM, SIGKILL after `stop_seconds`."""

    deadline_seconds: float = 15.0
    stop_seconds: float = 10.0


@dataclass(frozen=True)
class Route:
    """A path prefix that Nginx sends to the service; `stream` supports long-lived responses and protocol upgrades."""

    prefix: str
    stream: bool = False


@dataclass(frozen=True)
class Recorded:
    """The identity of a service in an earlier release, whose environment only the host still has.

    `spec` is the hash of everything that defined the container except the image.
    """

    spec: str


@dataclass(frozen=True)
class Service:
    """One service of the application on one host, with every value resolved.

    `recorded` replaces `env` if the service comes from a host's record of a release. Records of early versions have no
    `confinement`.
    """

    name: str
    image: Image
    container_port: int
    service_port: int = field(metadata={"key": "stable_port"})
    gate: Gate = Gate()
    drain: Drain = Drain()
    routes: tuple[Route, ...] = ()
    mounts: tuple[Mount, ...] = ()
    alias: str = ""
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    memory_bytes: int | None = None
    cpus: float | None = None
    restart_policy: str = "on-failure"
    confinement: Confinement | None = None
    recorded: Recorded | None = None

    def port(self, color: Color) -> int:
        """The loopback port on which this color is published."""
        return self.service_port + PORT_OFFSET[color]


@dataclass(frozen=True)
class Probe:
    """One HTTP check: GET `path` on the service port of `service` must answer 2xx."""

    service: str
    path: str


@dataclass(frozen=True)
class Tls:
    """The files of the certificate on the host; `acme` forwards the challenges of an authority to certbot."""

    certificate: str
    key: str
    chain: str = ""
    acme: bool = False


@dataclass(frozen=True)
class DatabaseServer:
    """The application's PostgreSQL database: its address without the password, and the password."""

    address: str
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class Login:
    """The credentials for a registry."""

    registry: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Thresholds:
    """The limits of a healthy host: percentages of the whole, ages and offsets in seconds."""

    free_percent: float = 10.0
    memory_percent: float = 90.0
    certificate_days: float = 14.0
    clock_seconds: float = 5.0
    backup_age_seconds: float = 26 * 3600.0


@dataclass(frozen=True)
class Application:
    """The application on one host: names, services in upgrade order, data paths, public address."""

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
        """The service with that name. Raises KeyError."""
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)

    @property
    def public_ports(self) -> tuple[int, ...]:
        """The ports on which Nginx serves the site."""
        return (self.http_port, self.https_port) if self.tls else (self.http_port,)

    @property
    def log_directories(self) -> tuple[str, ...]:
        """The directories of the log files, each once."""
        return tuple(dict.fromkeys(path.rpartition("/")[0] for path in self.log_files))

    @property
    def home(self) -> str:
        """The directory on the host that holds flags, history, lock and journal."""
        return f"/var/lib/{self.name}"
