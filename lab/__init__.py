"""Real Debian hosts on one machine, a registry they pull from, and the sample application they run.

`up`, `down` and `status` are the whole of it for a person; tests hold a `Lab` and its `Host`s. The package
owns containers, volumes and networks that carry its own label, and its folder `.lab/<name>`; it touches nothing
else. It never prepares a host for the application: `inv setup` does that, as on any other host.
"""

from __future__ import annotations

from lab.host import Host
from lab.laboratory import HostStatus, Lab, down, open_shell, status, up
from lab.machine import packages

__all__ = ["Host", "HostStatus", "Lab", "down", "open_shell", "packages", "status", "up"]
