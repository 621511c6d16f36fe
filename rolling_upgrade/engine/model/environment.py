"""The desired state: an environment with its hosts and its settings for rollout, setup and monitoring.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from rolling_upgrade.engine.model.application import Application
from rolling_upgrade.engine.model.build import Pipeline


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
    known_hosts: tuple[str, ...] = ()
    trust_file: str = ""
    access_directory: str = ""
    warnings: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)
