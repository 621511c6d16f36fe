"""Whether a host is fit for a run: findings from one observation, each with its remedy. Pure; it asks nothing."""

from __future__ import annotations

from dataclasses import dataclass

from fabfile.commands.podman import container_name
from fabfile.model import Application, Color, HostState, Service

#: Free space under which no deploy begins: a tenth of the file system, but no more than this many KiB.
ENOUGH_FREE_KIB = 2 * 1024 * 1024
MINIMUM_INODES = 10_000


@dataclass(frozen=True)
class Finding:
    """One reason why nothing is touched on a host, and what to do about it."""

    host: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.host}: {self.problem}. {self.remedy}"


def findings(state: HostState, app: Application, *, room: bool = True) -> tuple[Finding, ...]:
    """Everything that speaks against touching the host; `room` says whether images and a backup need some."""
    found = [
        *_tools(state, app),
        *_prepared(state),
        *_request_log(state, app),
        *(_space(state) if room else []),
        *_names(state, app),
    ]
    for service in app.services:
        found += _ports(state, service)
    return tuple(Finding(state.host, problem, remedy) for problem, remedy in found)


def backup(state: HostState, app: Application) -> tuple[Finding, ...]:
    """Everything that speaks against a backup of everything; the room for it is measured when it begins."""
    needed = ["podman", "flock", *(["sqlite3"] if app.database else []), *(["rsync"] if app.uploads else [])]
    needed += ["pg_dump"] if app.database_server else []
    found = [*_missing(state, needed), *(one for one in _prepared(state) if state.fact("home") != "yes")]
    return tuple(Finding(state.host, problem, remedy) for problem, remedy in found)


def _tools(state: HostState, app: Application) -> list[tuple[str, str]]:
    needed = ["podman", "nginx", "curl", "ss", "flock", "pgrep", *(["sqlite3"] if app.database else [])]
    return _missing(state, [*needed, *(["pg_dump"] if app.database_server else [])])


def _missing(state: HostState, needed: list[str]) -> list[tuple[str, str]]:
    missing = [tool for tool in needed if state.fact(f"has_{tool}") != "yes"]
    return [(f"{', '.join(missing)} missing", "Install what is missing, then run the task again")] if missing else []


def _prepared(state: HostState) -> list[tuple[str, str]]:
    remedy = "Run inv setup for this host first"
    found = []
    if state.fact("helper") != "yes":
        found.append(("the Nginx site helper or its sudo rule is missing", remedy))
    elif state.fact("site_rules") != "yes":
        problem = "the host knows the site under another name, other ports or another certificate"
        found.append((problem, "Run inv setup for this host first: those are root's to change"))
    if state.fact("home") != "yes":
        found.append(("the application's directory is missing or not writable", remedy))
    elif closed := state.fact("closed"):
        problem = f"Nginx's workers cannot look into {closed}: every flag would mean blue to them"
        found.append((problem, f"As its owner: chmod o+x {closed}"))
    if state.fact("has_nginx") == "yes" and state.fact("nginx_active") != "active":
        found.append(
            (f"Nginx is {state.fact('nginx_active') or 'not a service here'}", "As root: systemctl start nginx")
        )
    if state.fact("linger") != "yes":
        found.append(("linger is off: rootless containers would die after logout", remedy))
    return found


def _request_log(state: HostState, app: Application) -> list[tuple[str, str]]:
    """Nginx refuses a site whose log has no directory, and an older site helper one that names a log at all."""
    if not app.request_metrics or state.fact("request_log") == "yes":
        return []
    remedy = "Run inv setup for this host first, or set REQUEST_METRICS=false"
    return [("the host is not prepared for the request log", remedy)]


def _space(state: HostState) -> list[tuple[str, str]]:
    found = []
    free, total = _number(state, "free_kib"), _number(state, "total_kib")
    enough = min(total // 10, ENOUGH_FREE_KIB)
    if free < enough:
        found.append(
            (
                f"{_mib(free)} free, {_mib(enough)} needed for images",
                "Make room, for example with podman image prune --all",
            )
        )
    needed = _number(state, "database_kib") * 11 // 10 + 51_200
    backup_free = _number(state, "backup_free_kib")
    if backup_free < needed:
        found.append(
            (
                f"{_mib(backup_free)} free for backups, {_mib(needed)} needed",
                "Make room in the backup directory",
            )
        )
    if _number(state, "free_inodes") < MINIMUM_INODES and state.fact("free_inodes").isdigit():
        found.append((f"only {state.fact('free_inodes')} inodes free", "Delete what is not needed"))
    return found


def _names(state: HostState, app: Application) -> list[tuple[str, str]]:
    wanted = {container_name(app.name, service.name, color) for service in app.services for color in Color}
    return [
        (
            f"a container named {name} exists that this project did not make",
            f"Remove or rename it: podman rename {name} NEW",
        )
        for name in state.foreign
        if name in wanted
    ]


def _ports(state: HostState, service: Service) -> list[tuple[str, str]]:
    found = []
    if not state.live_site_hash and service.stable_port in state.listening:
        found.append(
            (
                f"{service.name}: port {service.stable_port} is taken, and not by this application's Nginx site",
                f"See who listens: ss -tlnp | grep :{service.stable_port}",
            )
        )
    active = state.container(service.name, state.active_color(service.name))
    if active is not None and active.running and active.stable_port not in {0, service.stable_port}:
        problem = f"{service.name}: its stable port would change from {active.stable_port} to {service.stable_port}"
        found.append((f"{problem} while it serves", f"Keep the port, or stop it first: podman stop {active.name}"))
    for color in Color:
        port, container = service.port(color), state.container(service.name, color)
        if port in state.listening and (container is None or not container.running):
            found.append(
                (
                    f"{service.name}: port {port} of {color.value} is taken by something else",
                    f"See who listens: ss -tlnp | grep :{port}",
                )
            )
    return found


def _number(state: HostState, fact: str) -> int:
    text = state.fact(fact)
    return int(text) if text.isdigit() else 0


def _mib(kib: int) -> str:
    return f"{kib // 1024} MiB"
