"""How well a host is: its checks, their limits, and what one look found. Shapes only.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fabfile.model.observed import HostState


class Kind(str, Enum):
    """What a check looks at."""

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
    """One thing that was looked at on a host; `name` is the same at every look and stands once in a report.

    `answered` says of an HTTP check whether there was an answer at all, be it a bad one.
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
    """What one look at one host found; `state` has the containers, flags, lock and maintenance page that were seen.

    `certificate_ends` is when the certificate that visitors get runs out, Unix seconds; None without one.
    """

    state: HostState
    checks: tuple[Check, ...]
    certificate_ends: int | None = None

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that are not well."""
        return tuple(check for check in self.checks if not check.ok)
