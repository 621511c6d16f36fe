"""The lab: Debian hosts in containers on one machine, a registry, and a sample application.

Operators use `up`, `down` and `status`; tests use a `Lab` and its `Host`s. The lab changes only containers, volumes and
networks with its label, and its directory `.lab/<name>`. `inv setup` prepares its hosts, as any other host.
"""

from __future__ import annotations

from lab.host import Host
from lab.laboratory import HostStatus, Lab, down, open_shell, status, up
from lab.machine import packages

__all__ = ["Host", "HostStatus", "Lab", "down", "open_shell", "packages", "status", "up"]
