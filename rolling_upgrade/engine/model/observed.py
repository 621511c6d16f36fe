"""What is on a host: containers, lock, history, probes. Shapes only.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from fabfile.model.wanted import Color, Image


class Outcome(str, Enum):
    """How a run ended on one host, as the host's history keeps it."""

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
    stable_port: int = 0
    env_fingerprints: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Lock:
    """Who holds a host, why, and until when (Unix seconds on the host's clock).

    `key` and `client` are what the host saw: the fingerprint of the SSH key and the address it came from.
    """

    token: str
    owner: str
    workstation: str
    pid: int
    reason: str
    acquired_at: int
    expires_at: int
    key: str = ""
    client: str = ""


@dataclass(frozen=True)
class ServiceRelease:
    """What one service ran in a release; `revision` is the source revision that the image names."""

    image: str
    digest: str
    color: Color
    spec: str = ""
    revision: str = ""


@dataclass(frozen=True)
class Release:
    """One line of a host's history.

    `target` is what the run went to (a release, a backup), `left` the release that a rollback left. `key` and `client`
    are what the host saw of the operator, `workstation` what the operator's machine says; `revision` is that of the
    clone that the run was started from.
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
        """What ran, whatever its color: two releases with one content are the same to a visitor."""
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
    site: str = ""
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
