"""The data model: desired state, observed state, the events and results of a run, and notifications.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from enum import Enum
from urllib.parse import urlsplit

from rolling_upgrade.errors import ExitCode, LockLost, RollingError

# --- Where notifications go.


class Severity(str, Enum):
    """The severity of a message, in ascending order."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    def reaches(self, lowest: Severity) -> bool:
        """Whether this severity is at least as high as the other."""
        order = list(Severity)
        return order.index(self) >= order.index(lowest)


class Security(str, Enum):
    """The protection of a connection to a mail server: STARTTLS, TLS from the first byte, or none."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True)
class Hook:
    """An address that accepts messages over HTTP, and is a secret; off with `lowest` None."""

    url: str = field(repr=False)
    lowest: Severity | None = Severity.INFO

    @property
    def secrets(self) -> tuple[str, ...]:
        """The texts to mask: the address, and each part of it that a library could quote alone."""
        parts = urlsplit(self.url)
        pieces = (
            parts.netloc.rpartition("@")[0],
            parts.password or "",
            *parts.path.split("/"),
            *parts.query.split("&"),
        )
        beyond = self.url.partition(parts.netloc)[2]
        return (self.url, *(piece for piece in (beyond, *pieces) if _is_secret(piece)))


def _is_secret(piece: str) -> bool:
    """Return whether a part of a URL is a secret, rather than an ordinary word such as `services`."""
    return len(piece) >= 16 or (len(piece) >= 8 and not re.fullmatch(r"[a-z_-]+", piece))


@dataclass(frozen=True)
class Mail:
    """A mail server, its login if it needs one, sender and recipients; off with `lowest` None."""

    host: str
    sender: str
    recipients: tuple[str, ...]
    port: int = 587
    user: str = ""
    password: str = field(default="", repr=False)
    security: Security = Security.STARTTLS
    lowest: Severity | None = Severity.INFO

    @property
    def secrets(self) -> tuple[str, ...]:
        """The texts to mask: the password, and its form in a login."""
        return (f"\0{self.user}\0{self.password}", self.password) if self.password else ()


@dataclass(frozen=True)
class Channels:
    """All configured channels, the language of the messages, and how long repeated alerts are suppressed."""

    slack: Hook | None = None
    mail: Mail | None = None
    webhook: Hook | None = None
    language: str = "en"
    repeat_seconds: float = 21_600.0

    @property
    def configured(self) -> tuple[tuple[str, Hook | Mail], ...]:
        """Each channel that has an address, by its name, even if it is off."""
        named = (("slack", self.slack), ("mail", self.mail), ("webhook", self.webhook))
        return tuple((name, channel) for name, channel in named if channel is not None)

    def accepting(self, severity: Severity) -> tuple[str, ...]:
        """The names of the channels that a message of this severity goes to."""
        return tuple(
            name for name, channel in self.configured if channel.lowest is not None and severity.reaches(channel.lowest)
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets of all channels, which must be masked."""
        return tuple(secret for _, channel in self.configured for secret in channel.secrets)


# --- The desired state of one host: the application with its services and images.


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


@dataclass(frozen=True)
class Volume:
    """A named volume of the application inside a container; `name` is without the application's prefix."""

    name: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class ContainerOptions:
    """Options of a container that services and accessories share; each default is Podman's own.

    `tmpfs` (`/tmp:size=64m`), `devices` (`/dev/fuse:/dev/fuse:rwm`), `ulimits` (`nofile=1024:4096`) and `add_host`
    (`db:10.0.0.5`) have the form of Podman's options.
    """

    user: str = ""
    volumes: tuple[Volume, ...] = ()
    tmpfs: tuple[str, ...] = ()
    shm_bytes: int | None = None
    read_only: bool = False
    devices: tuple[str, ...] = ()
    ulimits: tuple[str, ...] = ()
    add_host: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    init: bool = False


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
    """A host directory inside a container; `owner` is its `UID:GID` there, which setup sets, '' for any."""

    source: str
    target: str
    read_only: bool = False
    owner: str = ""


@dataclass(frozen=True)
class SecretFile:
    """A value that a container reads from a file; `name` is its key, `target` the path inside the container."""

    name: str
    target: str
    value: str = field(default="", repr=False)


@dataclass(frozen=True)
class Gate:
    """The health gate of a candidate.

    `passes` consecutive successful answers pass it. Failures before `start_period_seconds` do not count; after it,
    `retries` consecutive ones fail the gate, and so does the deadline. A restart or an exit fails it at once.
    `host` and `scheme` replace those of the site in every check of the service, and `headers` are added.

    `ready` is a command inside the container that succeeds when the container is ready. A worker without one passes by
    the HEALTHCHECK of its image; if the image has none, by running for `running_seconds`.
    """

    path: str = "/health"
    passes: int = 3
    interval_seconds: float = 1.0
    timeout_seconds: float = 5.0
    start_period_seconds: float = 60.0
    retries: int = 3
    deadline_seconds: float = 120.0
    ready: tuple[str, ...] = ()
    ready_timeout_seconds: float = 10.0
    running_seconds: float = 10.0
    host: str = ""
    scheme: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Drain:
    """How an old color stops: connections end or the deadline passes, then SIGTERM, SIGKILL after `stop_seconds`."""

    deadline_seconds: float = 15.0
    stop_seconds: float = 10.0


@dataclass(frozen=True)
class Route:
    """A path prefix that Nginx sends to the service; `stream` supports long-lived responses and protocol upgrades.

    Attributes:
        domains: the domains with this route; empty for all.
        timeout_seconds: how long the application may be silent; 0 for a minute, or an hour with `stream`.
        max_body_bytes: the limit of a request's body; None for the limit of the site, 0 for none.
        strip_prefix: removes the prefix from the path that the application gets.
        users: the users who may enter with a password; empty for everybody.
        request_headers: headers that the application gets; an empty value removes one.
        response_headers: headers that visitors get in place of the application's; an empty value removes one.
    """

    prefix: str
    stream: bool = False
    domains: tuple[str, ...] = ()
    timeout_seconds: int = 0
    max_body_bytes: int | None = None
    strip_prefix: bool = False
    users: tuple[str, ...] = ()
    request_headers: tuple[tuple[str, str], ...] = ()
    response_headers: tuple[tuple[str, str], ...] = ()

    def applies(self, domain: str) -> bool:
        """Whether the domain has the route."""
        return not self.domains or domain in self.domains


@dataclass(frozen=True)
class Assets:
    """A directory of the image whose files stay reachable below `prefix` after an upgrade."""

    path: str
    prefix: str


class Start(str, Enum):
    """When a changed service starts in a deploy: with the other ones, or after the cutover of those before it."""

    TOGETHER = "together"
    AFTER_PREVIOUS = "after_previous"


class Handoff(str, Enum):
    """How a candidate takes over: both colors run for a while, or the old color stops before the candidate starts."""

    OVERLAP = "overlap"
    EXCLUSIVE = "exclusive"


@dataclass(frozen=True)
class Recorded:
    """The identity of a service in an earlier release, whose environment only the host still has.

    `spec` is the hash of everything that defined the container except the image.
    """

    spec: str


@dataclass(frozen=True)
class Service:
    """One service of the application on one host, with every value resolved.

    A worker has no ports: `container_port` and `service_port` are 0. An empty `command` and an `entrypoint` of None are
    those of the image; an empty `entrypoint` runs the command itself. `recorded` replaces `env` if the service comes
    from a host's record of a release. Records of earlier versions lack the fields that were added later.
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
    start: Start = Start.TOGETHER
    options: ContainerOptions = ContainerOptions()
    secret_files: tuple[SecretFile, ...] = ()
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    handoff: Handoff = Handoff.OVERLAP
    assets: Assets | None = None

    @property
    def is_worker(self) -> bool:
        """Whether the service has no port, and so no routes and no part in the site."""
        return self.container_port == 0

    @property
    def is_exclusive(self) -> bool:
        """Whether its two colors must never run at the same time."""
        return self.handoff is Handoff.EXCLUSIVE

    def port(self, color: Color) -> int:
        """The loopback port on which this color is published. Raises ValueError for a worker."""
        if self.is_worker:
            raise ValueError(f"the worker {self.name} has no port")
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
class Hsts:
    """The header that makes browsers use https only, for so many seconds."""

    max_age_seconds: int
    include_subdomains: bool = False
    preload: bool = False


@dataclass(frozen=True)
class SiteOptions:
    """The options of the whole site.

    Attributes:
        domains: the domains besides the application's own, including those that only redirect.
        redirects: domains whose visitors are sent to another one.
        trusted_proxies: the networks of the proxies whose X-Forwarded headers count.
        gzip: compresses texts; without it, the Nginx configuration of the host decides.
        header_bytes: the size that one header of a request and all headers of a response may have.
        password_hashes: the salted password hashes of the users of routes, by their names.
    """

    domains: tuple[str, ...] = ()
    redirects: tuple[tuple[str, str], ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    http2: bool = True
    gzip: bool = False
    hsts: Hsts | None = None
    header_bytes: int = 32 * 1024
    password_hashes: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class DatabaseServer:
    """The application's PostgreSQL database: its address without the password, and the password."""

    address: str
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class PublishedPort:
    """A port of an accessory's container that the host publishes, on its loopback unless another address is given."""

    host_port: int
    container_port: int
    address: str = "127.0.0.1"


@dataclass(frozen=True)
class Accessory:
    """A container that the application uses and no deploy touches, such as a database, with every value resolved.

    Its name is its host name on the application's network. `health` is the command of its health check; without one it
    has the check of its image, and without that it is healthy while it runs. `deadline_seconds` is the longest time
    from its start until it is healthy. An empty `command` is that of the image.
    """

    name: str
    image: Image
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    mounts: tuple[Mount, ...] = ()
    options: ContainerOptions = ContainerOptions()
    command: tuple[str, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    health: tuple[str, ...] = ()
    health_timeout_seconds: float = 5.0
    deadline_seconds: float = 120.0
    stop_seconds: float = 30.0
    memory_bytes: int | None = None
    cpus: float | None = None
    confinement: Confinement = Confinement()


@dataclass(frozen=True)
class AccessoryDatabase:
    """A database in an accessory that a service's URL names, and that the backups contain.

    `kind` is `postgres` or `mysql`; the latter is MariaDB too.
    """

    accessory: str
    kind: str
    name: str
    user: str
    port: int
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


class Overlap(str, Enum):
    """What happens when a job is due while its last run has not ended."""

    SKIP = "skip"
    REPLACE = "replace"


@dataclass(frozen=True)
class Job:
    """A command that a timer of the host runs in a one-off container of a service.

    `schedule` is the cron schedule as written, `calendar` has the same as OnCalendar expressions of systemd. Without an
    `entrypoint`, the container has that of the service or of the image; with an empty one, the command is the program.
    """

    name: str
    service: str
    command: tuple[str, ...]
    schedule: str
    calendar: tuple[str, ...]
    timeout_seconds: float = 3600.0
    overlap: Overlap = Overlap.SKIP
    entrypoint: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ReleaseCommand:
    """A command of a deploy that runs once, in a container of the new image, before any new container starts.

    An `entrypoint` of None is that of the service; an empty one runs the command itself.
    """

    service: str
    command: tuple[str, ...]
    timeout_seconds: float = 900.0
    entrypoint: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Application:
    """The application on one host: names, services in upgrade order, data paths, public address.

    `accessories_elsewhere` names those that only other hosts run. `databases` are in accessories of this host;
    `uncovered_databases` describes the database URLs that no backup covers.
    """

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
    release_command: ReleaseCommand | None = None
    accessories: tuple[Accessory, ...] = ()
    accessories_elsewhere: tuple[str, ...] = ()
    databases: tuple[AccessoryDatabase, ...] = ()
    uncovered_databases: tuple[str, ...] = ()
    site: SiteOptions = SiteOptions()
    jobs: tuple[Job, ...] = ()

    @property
    def domains(self) -> tuple[str, ...]:
        """All domains of the site, the primary one first; also those that only redirect."""
        return (self.domain, *self.site.domains)

    @property
    def served_domains(self) -> tuple[str, ...]:
        """The domains at which visitors reach the application."""
        sources = {source for source, _ in self.site.redirects}
        return tuple(domain for domain in self.domains if domain not in sources)

    def domain_of(self, service: Service) -> str:
        """The domain at which visitors reach the service: the primary one, unless all its routes are of others."""
        limited = [route.domains for route in service.routes]
        if not limited or any(not domains or self.domain in domains for domains in limited):
            return self.domain
        return limited[0][0]

    def service(self, name: str) -> Service:
        """The service with that name. Raises KeyError."""
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)

    @property
    def http_services(self) -> tuple[Service, ...]:
        """The services with a port; the others are workers."""
        return tuple(service for service in self.services if not service.is_worker)

    @property
    def has_site(self) -> bool:
        """Whether the host has a site: it runs a service with a port."""
        return bool(self.http_services)

    @property
    def has_database(self) -> bool:
        """Whether backups contain a database."""
        return bool(self.database or self.database_server or self.databases)

    @property
    def public_ports(self) -> tuple[int, ...]:
        """The ports on which Nginx serves the site; none without a site."""
        if not self.has_site:
            return ()
        return (self.http_port, self.https_port) if self.tls else (self.http_port,)

    @property
    def log_directories(self) -> tuple[str, ...]:
        """The directories of the log files, each once."""
        return tuple(dict.fromkeys(path.rpartition("/")[0] for path in self.log_files))

    @property
    def home(self) -> str:
        """The directory on the host that holds flags, history, lock and journal."""
        return f"/var/lib/{self.name}"


# --- Builds and test suites: the steps before a deploy.


class BuildType(str, Enum):
    """The purpose of an image; the build gets it as BUILD_TYPE."""

    RELEASE = "release"
    DEBUG = "debug"


class SuiteKind(str, Enum):
    """The kind of a test suite; `load` never runs against production."""

    UNIT = "unit"
    INTEGRATION = "integration"
    LOAD = "load"


@dataclass(frozen=True)
class Build:
    """How to build the image of one service; paths are on this workstation, `scan` is a command or empty."""

    service: str
    context: str
    file: str = ""
    target: str = ""
    debug_target: str = ""
    args: tuple[tuple[str, str], ...] = ()
    cache: bool = True
    squash: bool = False
    scan: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """One of the application's test commands; `pass_env` names the variables of this shell that it gets."""

    kind: SuiteKind
    command: tuple[str, ...]
    folder: str
    name: str = ""
    timeout_seconds: float = 1800.0
    env: tuple[tuple[str, str], ...] = ()
    pass_env: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name in output."""
        return self.name or self.kind.value

    def skipped(self, *, production: bool) -> bool:
        """Return whether the suite is skipped in that environment: load tests do not run in production."""
        return production and self.kind is SuiteKind.LOAD


@dataclass(frozen=True)
class Pipeline:
    """Everything before a deploy; `engine` is the build command (empty: detected), `reports` a directory.

    `pass_env` names the variables of this shell that the engine and the scan hook get.
    """

    engine: tuple[str, ...] = ()
    pass_env: tuple[str, ...] = ()
    builds: tuple[Build, ...] = ()
    suites: tuple[Suite, ...] = ()
    reports: str = ""


@dataclass(frozen=True)
class Source:
    """The Git work tree around a build context; empty if there is none. `dirty` lists the changed files."""

    root: str = ""
    revision: str = ""
    branch: str = ""
    version: str = ""
    origin: str = ""
    dirty: tuple[str, ...] = ()


# --- An environment: its hosts, and the settings for rollout, setup and monitoring.


class Firewall(str, Enum):
    """The program that closes every port except those of SSH and the site."""

    NONE = "none"
    NFTABLES = "nftables"
    UFW = "ufw"


class Certificate(str, Enum):
    """The origin of the certificate at SSL_CERT_PATH."""

    FILES = "files"
    SELF_SIGNED = "self-signed"
    ACME = "acme"


@dataclass(frozen=True)
class Preparation:
    """The settings of setup for an environment in `hosts.yaml`. Everything is off by default."""

    firewall: Firewall = Firewall.NONE
    certificate: Certificate = Certificate.FILES
    acme_email: str = ""
    acme_server: str = ""
    sysctl: tuple[tuple[str, str], ...] = field(default=())
    security_updates: bool = False
    rotate_logs_days: int = 0
    watchdog: bool = False
    node_exporter: bool = False
    monitoring_host: str = ""


#: The name of the monitoring host in output; with a monitoring host, no host of the inventory may have this name.
MONITORING_HOST = "monitoring"


@dataclass(frozen=True)
class Monitoring:
    """The host of Prometheus and Alertmanager ('' for none), the user that prepares it, and the limits of its alerts.

    The limits for disk, memory, certificate and backup are in the env file, shared with `inv health`. `runbook` is the
    address of docs/runbook.md for readers of alerts; '' names the file.
    """

    address: str = ""
    user: str = "root"
    port: int = 22
    jump: str = ""
    latency_seconds: float = 1.0
    error_percent: float = 5.0
    lock_seconds: float = 3600.0
    mixed_seconds: float = 1800.0
    maintenance_seconds: float = 14_400.0
    runbook: str = ""


class Transfer(str, Enum):
    """How images reach the hosts: each host pulls from a registry, or the workstation pushes the missing layers."""

    PULL = "pull"
    PUSH = "push"


@dataclass(frozen=True)
class RolloutPolicy:
    """The rollout settings of an environment in `hosts.yaml`; `signed_by` is a public key (PEM) or empty."""

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
    """One host of the inventory and its application; Prometheus scrapes `metrics_address`."""

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


#: The names of the hooks, in the order of a run.
HOOKS = ("before_connect", "before_deploy", "after_deploy", "after_rollback", "on_failure")


@dataclass(frozen=True)
class HookCommand:
    """A command of the workstation at one point of a run; `folder` is its working directory, `source` its place."""

    name: str
    command: tuple[str, ...]
    folder: str
    timeout_seconds: float = 300.0
    source: str = ""


@dataclass(frozen=True)
class Environment:
    """Everything that a run needs to know before it contacts a host.

    `secrets` are never printed. `warnings` were found in the configuration. `known_hosts` are the existing files,
    `trust_file` the one that `inv trust` writes; `access_directory` holds the public keys of people with access.
    """

    name: str
    targets: tuple[Target, ...]
    rollout: RolloutPolicy = RolloutPolicy()
    preparation: Preparation = field(default_factory=Preparation)
    monitoring: Monitoring = field(default_factory=Monitoring)
    pipeline: Pipeline = field(default_factory=Pipeline)
    hooks: tuple[HookCommand, ...] = ()
    known_hosts: tuple[str, ...] = ()
    trust_file: str = ""
    access_directory: str = ""
    warnings: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def services(self) -> tuple[Service, ...]:
        """Each service that a host runs, once, as its first host runs it."""
        found: dict[str, Service] = {}
        for service in (service for target in self.targets for service in target.application.services):
            found.setdefault(service.name, service)
        return tuple(found.values())

    def running(self, service: str) -> Environment:
        """The environment with only the hosts that run the service."""
        runs = (target for target in self.targets if service in {each.name for each in target.application.services})
        return replace(self, targets=tuple(runs))


# --- The observed state of a host: containers, lock, history, probes.


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
class AccessoryContainer:
    """The container of an accessory on a host, running or not; `spec` is the hash of its definition without its image."""

    accessory: str
    name: str
    running: bool
    status: str
    started_at: str
    restarts: int
    exit_code: int
    image: Image
    image_id: str = ""
    spec: str = ""


@dataclass(frozen=True)
class AccessoryCheck:
    """The answer of an accessory's health check, '' for a good one; `exists` is false for one without a check."""

    accessory: str
    exists: bool
    answer: str


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
    """The observed state of one host; `environments` has the marks of `environment_marks` by directory."""

    host: str
    now: int = 0
    facts: tuple[tuple[str, str], ...] = ()
    active: tuple[tuple[str, Color], ...] = ()
    containers: tuple[Container, ...] = ()
    accessories: tuple[AccessoryContainer, ...] = ()
    accessory_checks: tuple[AccessoryCheck, ...] = ()
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
    def supposed_accessories(self) -> tuple[str, ...]:
        """The names of the accessories that are supposed to run on the host."""
        return tuple(self.fact("accessories").split())

    def accessory(self, name: str) -> AccessoryContainer | None:
        """The container of that accessory, running or not."""
        return next((container for container in self.accessories if container.accessory == name), None)

    @property
    def held_lock(self) -> Lock | None:
        """The lock of the host while its lease lasts."""
        return self.lock if self.lock is not None and self.lock.expires_at > self.now else None

    @property
    def last_good(self) -> Release | None:
        """The newest good release in the history."""
        good = [release for release in self.releases if release.good]
        return good[-1] if good else None


@dataclass(frozen=True)
class UnseenRun:
    """A run that ended without its workstation: what it did, whose it was, when it ended (Unix seconds), and how."""

    title: str
    owner: str
    ended_at: int
    result: HostResult


class Kind(str, Enum):
    """The subject of a check."""

    CONTAINER = "container"
    ACCESSORY = "accessory"
    HTTP = "http"
    READY = "ready"
    DATABASE = "database"
    DISK = "disk"
    MEMORY = "memory"
    CERTIFICATE = "certificate"
    CLOCK = "clock"
    BACKUP = "backup"
    JOB = "job"


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


# --- The id of a run, its events, and its results.


def new_run_id(now: float | None = None) -> str:
    """A unique id that sorts by time, such as 20261123T020000Z-3fa2b1; `now` is in Unix seconds."""
    moment = datetime.fromtimestamp(time.time() if now is None else now, timezone.utc)
    return f"{moment:%Y%m%dT%H%M%SZ}-{os.urandom(3).hex()}"


class Phase(str, Enum):
    """The kind of an event."""

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    NOTE = "note"
    PROGRESS = "progress"
    OUTPUT = "output"


@dataclass(frozen=True)
class Event:
    """An event of a run, at `at` Unix seconds.

    An empty `step` means the whole host, an empty `host` the whole run. `detail` has the lines of a log, new lines of
    output, or a text of the progress of a step. `sent` and `total` are the bytes of a transfer, with a total of 0 if it is unknown.
    """

    at: float
    phase: Phase
    title: str
    host: str = ""
    step: str = ""
    seconds: float = 0.0
    detail: str = ""
    sent: int = 0
    total: int = 0


@dataclass(frozen=True)
class StepRecord:
    """One step of a run in its host's journal, with times in Unix seconds of that host.

    `ended` and `status` are None for a step that never ended. `log` contains the last lines.
    """

    id: str
    began: float
    ended: float | None = None
    status: int | None = None
    log: tuple[str, ...] = ()


class HostResult(str, Enum):
    """The state of a host at the end of a run."""

    UPGRADED = "upgraded"
    CHANGED = "changed"
    ROLLED_BACK = "rolled back"
    RESTORED = "restored"
    RECOVERED = "recovered"
    PREPARED = "prepared"
    TORN_DOWN = "torn down"
    SYNCED = "synced"
    UNCHANGED = "unchanged"
    UNDONE = "undone"
    UNDO_FAILED = "undo-failed"
    NOT_STARTED = "not-started"
    UNKNOWN = "unknown"

    @classmethod
    def changed(cls) -> tuple[HostResult, ...]:
        """Return the results of a host whose complete plan was executed."""
        return cls.UPGRADED, cls.CHANGED, cls.ROLLED_BACK, cls.RESTORED, cls.RECOVERED


#: The results of a host that is in the desired state.
_GOOD = frozenset(HostResult) - {
    HostResult.UNDONE,
    HostResult.UNDO_FAILED,
    HostResult.NOT_STARTED,
    HostResult.UNKNOWN,
}


def exit_code(results: Iterable[HostResult | RollingError | None], *, interrupted: bool = False) -> ExitCode:
    """Combine the results of all hosts into one exit code. The first rule that applies decides:

    1. an undo failed: UNDO_FAILED
    2. a host's lock was lost to another run: LOCKED
    3. every host is in the desired state: DONE
    4. a host's state is unknown, or some hosts were changed and others were not: PARTLY_DONE
    5. the operator interrupted the run: INTERRUPTED
    6. the exit code of the first error, FAILED without one

    Args:
        results: for each host its result, the error that stopped the command before it changed anything there, or
            None if the command succeeded.
        interrupted: whether the operator interrupted the run.
    """
    hosts = list(results)
    if HostResult.UNDO_FAILED in hosts:
        return ExitCode.UNDO_FAILED
    if any(isinstance(result, LockLost) for result in hosts):
        return ExitCode.LOCKED
    if all(result is None or result in _GOOD for result in hosts):
        return ExitCode.DONE
    changed = (None, *_GOOD - {HostResult.UNCHANGED})
    if HostResult.UNKNOWN in hosts or any(result in changed for result in hosts):
        return ExitCode.PARTLY_DONE
    if interrupted:
        return ExitCode.INTERRUPTED
    return next((result.exit_code for result in hosts if isinstance(result, RollingError)), ExitCode.FAILED)


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
    """The result of a run, in output and JSON."""

    action: str
    environment: str
    release: str
    exit_code: int
    seconds: float
    hosts: tuple[HostSummary, ...]
    message: str = ""
    undo_command: str = ""
    warnings: tuple[str, ...] = ()


class Level(str, Enum):
    """The severity of a diagnosis: no action, worth attention, or a reason to refuse a deploy."""

    OK = "ok"
    WARNING = "warning"
    REFUSED = "refused"


@dataclass(frozen=True)
class Diagnosis:
    """One finding about a host or this machine, and the remedy."""

    host: str
    level: Level
    what: str
    remedy: str = ""


# --- Notifications about a run, a check or a recovery, independent of channel and language.


class Occasion(str, Enum):
    """The event that a message reports. A run that ends `partly` may also have hosts in an unknown state."""

    DEPLOY_STARTED = "deploy started"
    DEPLOY_DONE = "deploy done"
    DEPLOY_UNDONE = "deploy undone"
    DEPLOY_PARTLY = "deploy partly"
    DEPLOY_FAILED = "deploy failed"
    ROLLBACK_STARTED = "rollback started"
    ROLLBACK_DONE = "rollback done"
    ROLLBACK_UNDONE = "rollback undone"
    ROLLBACK_PARTLY = "rollback partly"
    ROLLBACK_FAILED = "rollback failed"
    RESTORE_STARTED = "restore started"
    RESTORE_DONE = "restore done"
    RESTORE_UNDONE = "restore undone"
    RESTORE_PARTLY = "restore partly"
    RESTORE_FAILED = "restore failed"
    ACCESSORY_STARTED = "accessory started"
    ACCESSORY_DONE = "accessory done"
    ACCESSORY_UNDONE = "accessory undone"
    ACCESSORY_PARTLY = "accessory partly"
    ACCESSORY_FAILED = "accessory failed"
    RECOVERY_DONE = "recovery done"
    RECOVERY_GIVEN_UP = "recovery given-up"
    CHECK_FAILING = "check failing"
    CHECK_AGAIN = "check again"
    CHECK_RESOLVED = "check resolved"
    TEST = "test"
    MESSAGE = "message"

    @property
    def subject(self) -> str:
        """The subject: `deploy`, `rollback`, `restore`, `accessory`, `recovery`, `check`, `test` or `message`."""
        return self.value.partition(" ")[0]

    @property
    def phase(self) -> str:
        """The phase of the subject: `started`, `done` …; '' for a test and an operator's message."""
        return self.value.partition(" ")[2]

    @property
    def severity(self) -> Severity:
        """The severity, unless a notice overrides it."""
        return _SEVERITIES.get(self.value) or _SEVERITIES.get(self.phase, Severity.INFO)

    @property
    def is_success(self) -> bool:
        """Whether the notice reports a finished run or a resolved alert."""
        return self.phase in {"done", "resolved"}


#: The severity by occasion or by phase; all others are INFO.
_SEVERITIES = {
    "recovery done": Severity.WARNING,
    "undone": Severity.WARNING,
    "partly": Severity.WARNING,
    "failed": Severity.CRITICAL,
    "given-up": Severity.CRITICAL,
    "failing": Severity.CRITICAL,
    "again": Severity.CRITICAL,
    # The end of an alert reaches everyone who received the alert.
    "resolved": Severity.CRITICAL,
}


@dataclass(frozen=True)
class VersionChange:
    """A change from one version to another, of a service or of the data; `hosts` if not all hosts change."""

    what: str
    before: str
    after: str
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Notice:
    """One message before it is rendered in a language.

    Attributes:
        thread: joins the messages of one run or one alert.
        at: Unix seconds.
        target: the tag that a run deploys, or the backup that it restores.
        check: the subject of an alert.
        results: the state of each host, if they differ.
        text: the text that an operator wrote.
        level: overrides the severity of the occasion.
    """

    occasion: Occasion
    application: str
    environment: str
    thread: str
    at: float
    hosts: tuple[str, ...] = ()
    who: str = ""
    target: str = ""
    check: str = ""
    changes: tuple[VersionChange, ...] = field(default=(), metadata={"key": "passages"})
    results: tuple[tuple[str, HostResult], ...] = ()
    seconds: float = 0.0
    cause: str = ""
    next_command: str = ""
    text: str = ""
    level: Severity | None = None

    @property
    def severity(self) -> Severity:
        """The severity, which selects the channels that receive the message."""
        return self.level or self.occasion.severity

    @property
    def id(self) -> str:
        """Identifies the event: equal for each attempt to send it, different for every other event."""
        again = f" {int(self.at)}" if self.occasion is Occasion.CHECK_AGAIN else ""
        return f"{self.thread} {self.occasion.value}{again}"
