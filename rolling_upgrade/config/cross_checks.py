"""What only shows when environments are looked at together, or with this machine's files. It contacts nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

from fabfile import model
from fabfile.config.findings import Findings
from fabfile.config.known_hosts import is_known
from fabfile.config.locating import expanded, locate
from fabfile.config.modes import too_open
from fabfile.errors import Mistake
from fabfile.sealing.forms import recognise


def clashes(environments: Sequence[model.Environment]) -> tuple[Mistake, ...]:
    """What two environments both claim on one host, each once."""
    found = [
        Mistake(f"{one.name} and {other.name}", f"host {mine.name}", what, expected)
        for one, other in combinations(environments, 2)
        for mine in one.targets
        for theirs in other.targets
        if _machine(mine) == _machine(theirs)
        for what, expected in _between(mine.application, theirs.application)
    ]
    return tuple(dict.fromkeys(found))


def _machine(target: model.Target) -> tuple[str, int, str]:
    return target.address.casefold(), target.port, target.jump


def _between(mine: model.Application, theirs: model.Application) -> Iterator[tuple[str, str]]:
    if mine.name == theirs.name:
        yield (
            f"APP_NAME {mine.name} in both",
            "a name for each: containers, directories and the site are named after it",
        )
    taken = dict(_ports(theirs))
    for port, use in _ports(mine):
        if port in taken:
            yield f"port {port} as {use} and as {taken[port]}", "a port for each"
    for port in sorted({port for port, _ in _ports(mine)} & set(_public(theirs))):
        yield f"port {port}, public in the one and a service's in the other", "a port for each"
    for port in sorted({port for port, _ in _ports(theirs)} & set(_public(mine))):
        yield f"port {port}, public in the one and a service's in the other", "a port for each"
    if mine.domain == theirs.domain and set(_public(mine)) & set(_public(theirs)):
        yield f"DOMAIN_NAME {mine.domain} on one public port", "a domain or a port for each"
    claimed = dict(_paths(theirs))
    for path, use in _paths(mine):
        if path in claimed:
            yield f"{path} as {use} and as {claimed[path]}", "a path for each"


def _ports(app: model.Application) -> Iterator[tuple[int, str]]:
    for service in app.services:
        yield service.stable_port, f"{service.name}'s stable port"
        for color in model.Color:
            yield service.port(color), f"{service.name}'s {color.value} port"


def _public(app: model.Application) -> tuple[int, ...]:
    return (app.http_port, app.https_port) if app.tls else (app.http_port,)


def _paths(app: model.Application) -> Iterator[tuple[str, str]]:
    named = (
        (app.database, "DATABASE_PATH"),
        (app.database_backups, "DATABASE_BACKUP_PATH"),
        (app.uploads, "UPLOADS_PATH"),
        (app.uploads_backups, "UPLOADS_BACKUP_PATH"),
    )
    yield from ((path, key) for path, key in named if path)


def warnings(environment: model.Environment, root: Path) -> tuple[str, ...]:
    """What of this machine's own files would spoil a run or give a secret away."""
    return (*_readable_secrets(environment.name, root), *unknown_hosts(environment))


def _readable_secrets(name: str, root: Path) -> Iterator[str]:
    findings = Findings(root.resolve())
    found = locate(name, root.resolve(), findings)
    mode = too_open(found.env_file)
    if mode and recognise(found.env_file.read_bytes()) is None:
        file = findings.name(found.env_file)
        yield f"{file}: its mode is {mode}, so others on this machine can read its secrets; chmod 600 {file}"


def unknown_hosts(environment: model.Environment) -> tuple[str, ...]:
    """Hosts whose key is on no record here; an alias of ssh_config is not judged."""
    aliases = _aliases()
    return tuple(
        f"{target.name}: no known_hosts file has a key for {target.address}; "
        f"inv trust --env {environment.name} --hosts {target.name} shows and records it"
        for target in environment.targets
        if target.address not in aliases and not is_known(target.address, target.port, environment.known_hosts)
    )


def _aliases() -> frozenset[str]:
    try:
        text = expanded("~/.ssh/config").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    rows = [line.split() for line in text.splitlines()]
    return frozenset(word for row in rows if row and row[0].casefold() == "host" for word in row[1:])
