"""One page about a host for a person who looks for a fault, and the same for a program. It asks no host."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from fabfile.model import Color, Container, Environment, HostState, Service, Target
from fabfile.report.output import Output
from fabfile.report.status import problems, uptime_seconds
from fabfile.report.text import duration, one_line, short_digest, table


@dataclass(frozen=True)
class Inspected:
    """What one look into a host found: its state, and the lines of each further part by its title."""

    state: HostState
    parts: Mapping[str, Sequence[str]]
    site_hash: str = ""


def render_inspection(
    environment: Environment,
    found: Mapping[str, Inspected],
    lost: Mapping[str, str],
    services: Sequence[str],
    *,
    json: bool,
    out: TextIO,
) -> None:
    """Write a page for each host; `lost` are hosts that gave no answer."""
    output = Output(out, environment.secrets)
    targets = {target.name: target for target in environment.targets}
    if json:
        from fabfile.report.json_lines import masked

        hosts = [_object(targets[name], one, services) for name, one in found.items()]
        hosts += [{"host": name, "error": why} for name, why in lost.items()]
        output.write(json_format.dumps(masked({"environment": environment.name, "hosts": hosts}, output), indent=2))
        output.write("\n")
        output.flush()
        return
    for name, one in found.items():
        output.show(list(_page(targets[name], one, services)))
    output.show([f"{name}  NOT REACHED: {one_line(why)}" for name, why in lost.items()])


def _page(target: Target, one: Inspected, services: Sequence[str]) -> Iterator[str]:
    state = one.state
    chosen = [service for service in target.application.services if service.name in services]
    wrong = problems(target, state)
    yield f"{target.name} ({target.address})  {state.fact('os')}  podman {state.fact('podman')}"
    yield from (f"  ! {one_line(problem)}" for problem in wrong)
    yield from _block("containers", _containers(chosen, state))
    yield from _block("ports", table([("PORT", "OF", "EXPECTED", "FOUND"), *_ports(target, chosen, state)]))
    yield from _block(
        "probes", table([("ok" if p.ok else "FAILED", p.url, p.detail, f"{p.milliseconds} ms") for p in state.probes])
    )
    yield from _block("site", [_site(one)])
    for title, lines in one.parts.items():
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
    serves = f"{color.value}{' (serves)' if state.active_color(service.name) is color else ''}"
    if container is None:
        return (service.name, serves, "none")
    up = uptime_seconds(container, state.now)
    return (
        service.name,
        serves,
        one_line(container.status),
        one_line(container.image.tag) or "-",
        short_digest(container.image.digest or container.image_id) or "-",
        container.release or "-",
        str(container.restarts),
        duration(up) if up is not None else "-",
        "-" if container.running else str(container.exit_code),
    )


def _ports(target: Target, services: Sequence[Service], state: HostState) -> Iterator[tuple[str, ...]]:
    """Each port that is ours: whether something should listen there, and whether something does."""
    app = target.application
    for service in services:
        yield _port(service.stable_port, f"{service.name} stable, nginx", True, state)
        for color in Color:
            container = state.container(service.name, color)
            yield _port(
                service.port(color), f"{service.name} {color.value}", bool(container and container.running), state
            )
    yield _port(app.http_port, "public, nginx", True, state)
    if app.tls:
        yield _port(app.https_port, "public TLS, nginx", True, state)


def _port(port: int, of: str, expected: bool, state: HostState) -> tuple[str, ...]:
    found = port in state.listening
    words = {True: "listening", False: "free"}
    wrong = "" if found is expected else "  <- not as expected"
    return (str(port), of, words[expected], f"{words[found]}{wrong}")


def _site(one: Inspected) -> str:
    live = one.state.live_site_hash
    if not live:
        return "Nginx does not answer the hash of the site that it runs"
    if one.site_hash and one.site_hash != live:
        return f"Nginx runs {live}, the file has {one.site_hash}: reload Nginx, or deploy again"
    return f"Nginx runs the site of the file, {live}"


def _lock(state: HostState) -> str:
    lock = state.lock
    if lock is None:
        return "free"
    left = lock.expires_at - state.now
    until = f"{duration(left)} left" if left > 0 else "its lease is over"
    return one_line(f"{lock.owner}@{lock.workstation} ({lock.reason}), {until}")


def _object(target: Target, one: Inspected, services: Sequence[str]) -> dict[str, Any]:
    state = one.state
    chosen = [service for service in target.application.services if service.name in services]
    ports = _ports(target, chosen, state)
    return {
        "host": target.name,
        "address": target.address,
        "problems": list(problems(target, state)),
        "facts": dict(state.facts),
        "active": {service.name: state.active_color(service.name).value for service in chosen},
        "containers": [_container_object(c) for c in state.containers if c.service in services],
        "ports": [
            {"port": int(p), "of": of, "expected": expected, "found": f.split()[0]} for p, of, expected, f in ports
        ],
        "probes": [asdict(probe) for probe in state.probes],
        "site": {"live": state.live_site_hash, "file": one.site_hash},
        "parts": {title: list(lines) for title, lines in one.parts.items()},
        "history": [{"id": r.id, "action": r.action, "outcome": r.outcome.value} for r in state.releases[-5:]],
        "lock": state.lock and {key: value for key, value in asdict(state.lock).items() if key != "token"},
    }


def _container_object(container: Container) -> dict[str, Any]:
    fields = asdict(container)
    del fields["env_fingerprints"]
    return fields | {
        "color": container.color.value,
        "image": container.image.reference,
        "digest": container.image.digest,
    }
