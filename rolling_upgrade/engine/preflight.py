"""Preflight checks: the problems of a host, found in one observation, each with its remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.model import Accessory, Application, Color, HostState, Service
from rolling_upgrade.engine.podman import container_name
from rolling_upgrade.engine.site import client as site
from rolling_upgrade.errors import PROGRAM

#: The free space that a deploy requires: a tenth of the file system, at most this many KiB.
ENOUGH_FREE_KIB = 2 * 1024 * 1024
MINIMUM_INODES = 10_000
#: A problem and its remedy.
Problem = tuple[str, str]


@dataclass(frozen=True)
class Finding:
    """A problem that prevents a run on a host, and its remedy."""

    host: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.host}: {self.problem}. {self.remedy}"


def findings(
    state: HostState,
    app: Application,
    *,
    room: bool = True,
    site_hash: str = "",
    program_sum: Callable[[], str] = str,
) -> tuple[Finding, ...]:
    """All problems that prevent a run on the host.

    Args:
        room: whether the run needs disk space for images or a backup.
        site_hash: the hash of the desired site.
        program_sum: returns the SHA-256 of the program that must render it on the host; only a change of the site asks.
    """
    found = [
        *_tools(state, app),
        *_prepared(state, app),
        *_site(state, app, site_hash, program_sum),
        *_request_log(state, app),
        *(_space(state) if room else []),
        *_names(state, app),
    ]
    for service in app.http_services:
        found += _ports(state, service)
    return tuple(Finding(state.host, problem, remedy) for problem, remedy in found)


def backup(state: HostState, app: Application) -> tuple[Finding, ...]:
    """All problems that prevent a backup. The backup itself checks its disk space at the start."""
    needed = ["podman", "flock", *(["python3", "sqlite3"] if app.database else []), *(["rsync"] if app.uploads else [])]
    needed += ["pg_dump"] if app.database_server else []
    found = [*_missing(state, needed), *(_prepared(state, app) if state.fact("home") != "yes" else [])]
    return tuple(Finding(state.host, problem, remedy) for problem, remedy in found)


def accessories(state: HostState, chosen: Iterable[Accessory]) -> tuple[Finding, ...]:
    """All problems that prevent a change of these accessories."""
    found = list(_missing(state, ["podman", "flock", "python3"]))
    remedy = f"Run {PROGRAM} setup for this host first"
    if state.fact("home") != "yes":
        found.append(("the application's directory is missing or not writable", remedy))
    if state.fact("linger") != "yes":
        found.append(("linger is off: rootless containers would die after logout", remedy))
    for accessory in chosen:
        container = state.accessory(accessory.name)
        for port in accessory.ports:
            if port.host_port in state.listening and not (container and container.running):
                problem = f"{accessory.name}: port {port.host_port} is in use by another process"
                found.append((problem, f"Find the process: ss -tlnp | grep :{port.host_port}"))
    return tuple(Finding(state.host, problem, remedy) for problem, remedy in found)


def _tools(state: HostState, app: Application) -> Iterator[Problem]:
    needed = ["podman", "curl", "ss", "flock", "pgrep", "python3", *(["sqlite3"] if app.database else [])]
    needed += ["nginx"] if app.has_site else []
    return _missing(state, [*needed, *(["pg_dump"] if app.database_server else [])])


def _missing(state: HostState, needed: list[str]) -> Iterator[Problem]:
    missing = [tool for tool in needed if state.fact(f"has_{tool}") != "yes"]
    described = {"python3": "python3 (3.10 or newer)", "sqlite3": "the sqlite3 module of python3"}
    missing = [described.get(tool, tool) for tool in missing]
    if missing:
        yield f"{', '.join(missing)} missing", "Install what is missing, then run the task again"


def _prepared(state: HostState, app: Application) -> Iterator[Problem]:
    remedy = f"Run {PROGRAM} setup for this host first"
    if app.has_site and state.fact("helper") != "yes":
        yield "the Nginx site helper or its sudo rule is missing", remedy
    if state.fact("home") != "yes":
        yield "the application's directory is missing or not writable", remedy
    elif app.has_site and (closed := state.fact("closed")):
        problem = f"Nginx's workers cannot access {closed}, so they would treat every service as blue"
        yield problem, f"As its owner: chmod o+x {closed}"
    if app.has_site and state.fact("has_nginx") == "yes" and state.fact("nginx_active") != "active":
        yield f"Nginx is {state.fact('nginx_active') or 'not installed as a service'}", "As root: systemctl start nginx"
    if state.fact("linger") != "yes":
        yield "linger is off: rootless containers would die after logout", remedy


def _site(state: HostState, app: Application, wanted_hash: str, program_sum: Callable[[], str]) -> Iterator[Problem]:
    """The host must grant the site's names and ports, and render the same text that the plan shows."""
    remedy = f"Run {PROGRAM} setup for this host first"
    if state.fact("helper") != "yes" or not app.has_site:
        return
    if wanted_hash and wanted_hash != state.live_site_hash and program_sum() != state.fact("helper_sum"):
        yield "the installed Nginx site helper is from a different version", remedy
    elif missing := site.missing_grant(state.fact("site_rules"), app):
        yield f"the host does not grant {app.name} {missing}", f"{remedy}: only root can change that"


def _request_log(state: HostState, app: Application) -> Iterator[Problem]:
    """Nginx refuses a site whose log directory is missing; an older site helper refuses one with a log."""
    if app.has_site and app.request_metrics and state.fact("request_log") != "yes":
        remedy = f"Run {PROGRAM} setup for this host first, or set REQUEST_METRICS=false"
        yield "the host is not prepared for the request log", remedy


def _space(state: HostState) -> Iterator[Problem]:
    free, total = _number(state, "free_kib"), _number(state, "total_kib")
    enough = min(total // 10, ENOUGH_FREE_KIB)
    if free < enough:
        remedy = "Free disk space, for example with podman image prune --all"
        yield f"{_mib(free)} free, {_mib(enough)} needed for images", remedy
    needed = _number(state, "database_kib") * 11 // 10 + 51_200
    backup_free = _number(state, "backup_free_kib")
    if backup_free < needed:
        yield f"{_mib(backup_free)} free for backups, {_mib(needed)} needed", "Free disk space in the backup directory"
    inodes = untrusted.integer(state.fact("free_inodes"), default=MINIMUM_INODES)
    if inodes < MINIMUM_INODES:
        yield f"only {inodes} inodes free", "Delete unneeded files"


def _names(state: HostState, app: Application) -> Iterator[Problem]:
    own_names = {container_name(app.name, service.name, color) for service in app.services for color in Color}
    for name in state.foreign:
        if name in own_names:
            problem = f"a container named {name} exists that rolling-upgrade did not create"
            yield problem, f"Remove or rename it: podman rename {name} NEW"


def _ports(state: HostState, service: Service) -> Iterator[Problem]:
    if not state.live_site_hash and service.service_port in state.listening:
        problem = f"{service.name}: port {service.service_port} is in use, but not by this application's Nginx site"
        yield problem, f"Find the process: ss -tlnp | grep :{service.service_port}"
    active = state.container(service.name, state.active_color(service.name))
    if active is not None and active.running and active.service_port not in {0, service.service_port}:
        change = f"{service.name}: its service port would change from {active.service_port} to {service.service_port}"
        yield f"{change} while it is running", f"Keep the port, or stop it first: podman stop {active.name}"
    for color in Color:
        port, container = service.port(color), state.container(service.name, color)
        if port in state.listening and not (container is not None and (container.running or container.stopping)):
            problem = f"{service.name}: the candidate port {port} ({color.value}) is in use by another process"
            yield problem, f"Find the process: ss -tlnp | grep :{port}"


def _number(state: HostState, fact: str) -> int:
    return untrusted.integer(state.fact(fact), default=0)


def _mib(kib: int) -> str:
    return f"{kib // 1024} MiB"
