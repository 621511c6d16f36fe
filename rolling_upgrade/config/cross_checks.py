"""Checks across environments, and of an environment against the files of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

from rolling_upgrade.config.checks import contains, data_directories, home_of
from rolling_upgrade.config.encryption import detect
from rolling_upgrade.config.issues import Issues
from rolling_upgrade.config.locate import expanded, locate
from rolling_upgrade.engine import model
from rolling_upgrade.engine.local_file import exposed_mode, read_small
from rolling_upgrade.engine.openssh import read_records, usable
from rolling_upgrade.errors import PROGRAM, ConfigIssue


def conflicts(environments: Sequence[model.Environment]) -> tuple[ConfigIssue, ...]:
    """Report names, ports, domains and paths that two environments use on the same host."""
    issues = [
        ConfigIssue(f"{first.name} and {second.name}", f"host {mine.name}", found, expected)
        for first, second in combinations(environments, 2)
        for mine in first.targets
        for theirs in second.targets
        if _machine(mine) == _machine(theirs)
        for found, expected in (
            *_between(mine.application, theirs.application),
            *_mounted(mine, theirs),
            *_mounted(theirs, mine),
        )
    ]
    return tuple(dict.fromkeys(issues))


def _machine(target: model.Target) -> tuple[str, int, str]:
    return target.address.casefold(), target.port, target.jump


def _between(mine: model.Application, theirs: model.Application) -> Iterator[tuple[str, str]]:
    if mine.name == theirs.name:
        yield (
            f"APP_NAME {mine.name} in both",
            "different names: containers, directories and the site are named after it",
        )
    ports = dict(_ports(theirs))
    for port, use in _ports(mine):
        if port in ports:
            yield f"port {port} as {use} and as {ports[port]}", "different ports"
    for first, second in ((mine, theirs), (theirs, mine)):
        for port in sorted({port for port, _ in _ports(first)} & set(second.public_ports)):
            yield f"port {port}, public in one environment and of a service in the other", "different ports"
    if set(mine.public_ports) & set(theirs.public_ports):
        others = {domain.lower() for domain in theirs.domains}
        for domain in (domain for domain in mine.domains if domain.lower() in others):
            yield f"the domain {domain} on one public port", "different domains or ports"
    paths = dict(_paths(theirs))
    for path, use in _paths(mine):
        if path in paths:
            yield f"{path} as {use} and as {paths[path]}", "different paths"


def _ports(app: model.Application) -> Iterator[tuple[int, str]]:
    for service in app.http_services:
        yield service.service_port, f"{service.name}'s service port"
        for color in model.Color:
            yield service.port(color), f"{service.name}'s {color.value} port"


def _paths(app: model.Application) -> Iterator[tuple[str, str]]:
    named = (
        (app.database, "DATABASE_PATH"),
        (app.database_backups, "DATABASE_BACKUP_PATH"),
        (app.uploads, "UPLOADS_PATH"),
        (app.uploads_backups, "UPLOADS_BACKUP_PATH"),
    )
    yield from ((path, key) for path, key in named if path)


def _mounted(mine: model.Target, theirs: model.Target) -> Iterator[tuple[str, str]]:
    """Report writable mounts of one environment that reach directories of the other."""
    app = theirs.application
    data = (directory.path for directory in data_directories(app))
    directories = dict.fromkeys((app.home, home_of(theirs.user), *data))
    mounts = (mount for service in mine.application.services for mount in service.mounts if not mount.read_only)
    for source in dict.fromkeys(mount.source for mount in mounts):
        for path in directories:
            if contains(source, path):
                yield f"{source}, mounted by {mine.application.name}, is or contains {path}", "separate directories"
        if source != app.home and contains(app.home, source):
            yield f"{source}, mounted by {mine.application.name}, is inside {app.home}", "separate directories"


def local_warnings(environment: model.Environment, root: Path) -> tuple[str, ...]:
    """Warn about files of this machine: a readable env file, or a host without a known key."""
    return (*_readable_secrets(environment.name, root), *unknown_hosts(environment))


def _readable_secrets(name: str, root: Path) -> Iterator[str]:
    issues = Issues(root.resolve())
    located = locate(name, root.resolve(), issues)
    mode = "" if located.entry.env_command else exposed_mode(located.env_file)
    if mode and detect(read_small(located.env_file)) is None:
        file = issues.name(located.env_file)
        yield f"{file}: mode {mode} lets other users of this machine read its secrets; chmod 600 {file}"


def unknown_hosts(environment: model.Environment) -> tuple[str, ...]:
    """Warn about hosts without a known key; aliases of ssh_config are skipped."""
    aliases = _aliases()
    return tuple(
        f"{target.name}: no known_hosts file has a key for {target.address}; "
        f"{PROGRAM} trust --env {environment.name} --hosts {target.name} shows and records it"
        for target in environment.targets
        if target.address not in aliases
        and not usable(read_records(target.address, target.port, environment.known_hosts))
    )


def _aliases() -> frozenset[str]:
    try:
        text = expanded("~/.ssh/config").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    rows = [line.split() for line in text.splitlines()]
    return frozenset(word for row in rows if row and row[0].casefold() == "host" for word in row[1:])
