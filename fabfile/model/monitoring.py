"""The host that watches an environment from outside, and beyond which figures it pages. It decides nothing."""

from __future__ import annotations

from dataclasses import dataclass

#: How the monitoring host is called where hosts are named; no host of the inventory may have the name beside it.
MONITORING_HOST = "monitoring"


@dataclass(frozen=True)
class Monitoring:
    """Where Prometheus and Alertmanager run ('' for nowhere), who prepares that host, and the limits of its alerts.

    Disk, memory, certificate and backup have their limits in the env file, as `inv health` has. `runbook` is the
    address under which people read docs/operations.md; '' names that file.
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
