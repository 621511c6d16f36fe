"""`inv inspect`: a troubleshooting page for each host, read in one round trip."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rolling_upgrade import config
from rolling_upgrade.console.output import print_result
from rolling_upgrade.console.text import duration, one_line, table, unreachable_lines
from rolling_upgrade.engine import observation
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.model import (
    Application,
    Color,
    Container,
    Environment,
    HostState,
    Service,
    Target,
    short_digest,
)
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.errors import ExitCode
from rolling_upgrade.features.inspect import shell
from rolling_upgrade.features.logs.workflow import chosen_services
from rolling_upgrade.features.status.workflow import problems, uptime_seconds
from rolling_upgrade.ssh.fleet import opened

INSPECT_SECONDS = 180.0
#: The answer holds five lines of each container's log, and lines may be long.
_ANSWER_BYTES = 8 << 20
_SITE_HASH = re.compile(r"[0-9a-f]{16,64}")


def inspect(
    env: str | None, *, root: Path, hosts: tuple[str, ...] = (), service: Sequence[str] = (), json: bool = False
) -> ExitCode:
    """Print a page for each host. FAILED when a host is unreachable."""
    environment = config.load(env, root=root, hosts=hosts)
    names = chosen_services(environment, service)
    with opened(environment) as fleet:
        inspections, unreachable = fleet.on_reachable(
            lambda host: _inspect(host, fleet.targets[host.name].application, names)
        )
    view = inspect_json if json else inspect_lines
    print_result(view(environment, inspections, unreachable, names), environment.secrets)
    return ExitCode.FAILED if unreachable else ExitCode.DONE


def _inspect(host: Host, app: Application, services: Sequence[str]) -> Inspection:
    answer = host.run(shell.inspect(app, services).answering(_ANSWER_BYTES), timeout_seconds=INSPECT_SECONDS)
    state = observation.from_answer(app, host.name, answer)
    parts = shell.parse(answer.output)
    titled = {title: parts.get(key, ()) for key, title in shell.TITLES.items()}
    site_hash = _SITE_HASH.search(state.site.partition("\n")[0])
    return Inspection(state, titled, site_hash[0] if site_hash else "")


@dataclass(frozen=True)
class Inspection:
    """One host's state, the lines of each further part by its title, and the hash in the installed site's file."""

    state: HostState
    parts: Mapping[str, Sequence[str]]
    site_hash: str = ""


@dataclass(frozen=True)
class Port:
    """A port of the application and its purpose; `expected` and `found` are `listening` or `free`."""

    port: int
    of: str
    expected: str
    found: str


def inspect_lines(
    environment: Environment,
    inspections: Mapping[str, Inspection],
    unreachable: Mapping[str, str],
    services: Sequence[str],
) -> list[str]:
    """Return a page for each host."""
    targets = {target.name: target for target in environment.targets}
    pages = [line for name, found in inspections.items() for line in _page(targets[name], found, services)]
    return [*pages, *unreachable_lines(unreachable)]


def inspect_json(
    environment: Environment,
    inspections: Mapping[str, Inspection],
    unreachable: Mapping[str, str],
    services: Sequence[str],
) -> dict[str, Any]:
    """Return the report as a JSON object."""
    targets = {target.name: target for target in environment.targets}
    hosts = [_host_json(targets[name], found, services) for name, found in inspections.items()]
    hosts += [{"host": name, "error": error} for name, error in unreachable.items()]
    return {"environment": environment.name, "hosts": hosts}


def _page(target: Target, found: Inspection, services: Sequence[str]) -> Iterator[str]:
    state = found.state
    chosen = [service for service in target.application.services if service.name in services]
    yield f"{target.name} ({target.address})  {state.fact('os')}  podman {state.fact('podman')}"
    yield from (f"  ! {one_line(problem)}" for problem in problems(target, state))
    yield from _block("containers", _containers(chosen, state))
    yield from _block("ports", _port_table(_ports(target, chosen, state)))
    yield from _block(
        "probes", table([("ok" if p.ok else "FAILED", p.url, p.detail, f"{p.milliseconds} ms") for p in state.probes])
    )
    if target.application.has_site:
        yield from _block("site", [_site(found)])
    for title, lines in found.parts.items():
        yield from _block(title, table([line.split("\t") for line in lines]) or ["nothing"])
    history = [(r.id, r.action, r.outcome.value, r.owner, one_line(r.reason)) for r in state.releases[-5:]]
    yield from _block("history, newest last", table(history) or ["none"])
    yield from _block("lock", [_lock(state)])
    yield ""


def _block(title: str, lines: Sequence[str]) -> Iterator[str]:
    yield f"--- {title}"
    yield from (f"  {line}" for line in lines)


def _containers(services: Sequence[Service], state: HostState) -> list[str]:
    head = ("SERVICE", "COLOR", "STATE", "TAG", "DIGEST", "RELEASE", "RESTARTS", "UP", "EXIT")
    rows = [
        _container_row(service, color, state.container(service.name, color), state)
        for service in services
        for color in Color
    ]
    return table([head, *rows])


def _container_row(service: Service, color: Color, container: Container | None, state: HostState) -> tuple[str, ...]:
    shown = f"{color.value}{' (active)' if state.active_color(service.name) is color else ''}"
    if container is None:
        return (service.name, shown, "none")
    up = uptime_seconds(container, state.now)
    return (
        service.name,
        shown,
        one_line(container.status),
        one_line(container.image.tag) or "-",
        short_digest(container.image.digest or container.image_id) or "-",
        container.release or "-",
        str(container.restarts),
        duration(up) if up is not None else "-",
        "-" if container.running else str(container.exit_code),
    )


def _ports(target: Target, services: Sequence[Service], state: HostState) -> Iterator[Port]:
    app = target.application

    def port(number: int, of: str, *, expected: bool) -> Port:
        words = {True: "listening", False: "free"}
        return Port(number, of, words[expected], words[number in state.listening])

    for service in (service for service in services if not service.is_worker):
        yield port(service.service_port, f"{service.name} stable, nginx", expected=True)
        for color in Color:
            container = state.container(service.name, color)
            running = container is not None and container.running
            yield port(service.port(color), f"{service.name} {color.value}", expected=running)
    if app.has_site:
        yield port(app.http_port, "public, nginx", expected=True)
    if app.has_site and app.tls:
        yield port(app.https_port, "public TLS, nginx", expected=True)


def _port_table(ports: Iterator[Port]) -> list[str]:
    rows = [("PORT", "OF", "EXPECTED", "FOUND")]
    for port in ports:
        unexpected = "" if port.found == port.expected else "  <- unexpected"
        rows.append((str(port.port), port.of, port.expected, f"{port.found}{unexpected}"))
    return table(rows)


def _site(found: Inspection) -> str:
    live = found.state.live_site_hash
    if not live:
        return "Nginx does not report the hash of its running site"
    if found.site_hash and found.site_hash != live:
        return f"Nginx runs {live}, the installed file has {found.site_hash}: reload Nginx, or deploy again"
    return f"Nginx runs the installed site, {live}"


def _lock(state: HostState) -> str:
    lock = state.lock
    if lock is None:
        return "free"
    left = lock.expires_at - state.now
    until = f"{duration(left)} left" if left > 0 else "its lease has expired"
    return one_line(f"{lock.owner}@{lock.workstation} ({lock.reason}), {until}")


def _host_json(target: Target, found: Inspection, services: Sequence[str]) -> dict[str, Any]:
    state = found.state
    chosen = [service for service in target.application.services if service.name in services]
    lock: dict[str, Any] | None = to_plain(state.lock)
    if lock is not None:
        del lock["token"]
    return {
        "host": target.name,
        "address": target.address,
        "problems": problems(target, state),
        "facts": dict(state.facts),
        "active": {service.name: state.active_color(service.name).value for service in chosen},
        "containers": [_container_json(container) for container in state.containers if container.service in services],
        "ports": [to_plain(port) for port in _ports(target, chosen, state)],
        "probes": state.probes,
        "site": {"live": state.live_site_hash, "file": found.site_hash},
        "parts": found.parts,
        "history": [
            {"id": release.id, "action": release.action, "outcome": release.outcome} for release in state.releases[-5:]
        ],
        "lock": lock,
    }


def _container_json(container: Container) -> dict[str, Any]:
    fields: dict[str, Any] = to_plain(container)
    return fields | {"image": container.image.reference, "digest": container.image.digest}
