"""What `inv setup` makes of a host beyond what every deploy needs. It decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Firewall(str, Enum):
    """Which program closes every port but those of SSH and of the site."""

    NONE = "none"
    NFTABLES = "nftables"
    UFW = "ufw"


class Certificate(str, Enum):
    """Where the certificate at SSL_CERT_PATH comes from."""

    FILES = "files"
    SELF_SIGNED = "self-signed"
    ACME = "acme"


@dataclass(frozen=True)
class Preparation:
    """How setup treats the hosts of an environment, as `hosts.yaml` says. All of it is off unless it is asked for."""

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
