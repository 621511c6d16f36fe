"""The databases that the services of an environment name in URLs, and whether a backup contains each of them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlsplit

from rolling_upgrade.config.issues import Issues
from rolling_upgrade.engine import model
from rolling_upgrade.engine.accessory_database import MYSQL, POSTGRES

#: The kinds of database by the scheme of a URL, without the driver after `+`.
_KINDS = {
    **dict.fromkeys(("postgres", "postgresql", "postgis", "psql"), POSTGRES),
    **dict.fromkeys(("mysql", "mysql2", "mariadb", "trilogy"), MYSQL),
}
_PORTS = {POSTGRES: 5432, MYSQL: 3306}
#: The names of variables whose URL should be covered by a backup.
_DATABASE_URL = re.compile(r"DATABASE_UR[IL]$")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class DatabaseUrl:
    """A URL of a database: its kind, '' for an unknown one, and its parts without percent-encoding."""

    kind: str
    host: str
    port: int
    name: str
    user: str
    password: str
    path: str

    @property
    def place(self) -> str:
        """The host and the name, for messages."""
        return f"{self.host}/{self.name}" if self.host else f"/{self.path.lstrip('/')}"


def parse_url(text: str) -> DatabaseUrl | None:
    """Parse the URL of a database; None for another text."""
    scheme, separator, _ = text.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    kind = _KINDS.get(scheme.partition("+")[0].lower(), "")
    return DatabaseUrl(
        kind,
        (parts.hostname or ""),
        port or _PORTS.get(kind, 0),
        unquote(parts.path.removeprefix("/")),
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        unquote(parts.path),
    )


def with_databases(
    applications: Mapping[str, model.Application], unsaved: Iterable[str], issues: Issues
) -> dict[str, model.Application]:
    """Add to each host the databases in its accessories, and those that no backup covers, with a warning each.

    A service may run on another host than the accessory that its URL names.

    Args:
        unsaved: the accessories that the configuration excludes from backups.
    """
    left_out = frozenset(unsaved)
    result = {}
    for host, app in applications.items():
        here = {accessory.name for accessory in app.accessories} - left_out
        found = {
            (url.host, url.name): url
            for other in applications.values()
            for _, _, url in _urls(other)
            if url.host in here and url.kind and _is_usable(url)
        }
        databases = tuple(
            model.AccessoryDatabase(url.host, url.kind, url.name, url.user, url.port, url.password)
            for url in sorted(found.values(), key=lambda url: (url.host, url.name))
        )
        result[host] = replace(app, databases=databases)
    saved = {(one.accessory, one.name) for app in result.values() for one in app.databases}
    for host, app in result.items():
        uncovered = tuple(_uncovered(app, saved, left_out))
        for text in uncovered:
            issues.warn(f"no backup contains the database of {text}")
        result[host] = replace(app, uncovered_databases=uncovered)
    return result


def _urls(app: model.Application) -> Iterator[tuple[model.Service, str, DatabaseUrl]]:
    for service in app.services:
        for key, value in service.env:
            if (url := parse_url(value)) is not None and (url.kind or _DATABASE_URL.search(key)):
                yield service, key, url


def _is_usable(url: DatabaseUrl) -> bool:
    """Return whether the programs can be told this database: it has a name and a user, in printable characters."""
    return bool(url.name and url.user) and not _UNPRINTABLE.search(url.name + url.user + url.password)


def _uncovered(app: model.Application, saved: set[tuple[str, str]], left_out: frozenset[str]) -> Iterator[str]:
    """Describe each DATABASE_URL that no backup covers, without its password, with the services that share it."""
    users: dict[str, list[str]] = {}
    for service, key, url in _urls(app):
        if not _DATABASE_URL.search(key) or url.host in left_out or (url.host, url.name) in saved:
            continue
        if not _is_file_of_the_backup(app, service, url) and not _is_the_server(app, url):
            users.setdefault(f"{key} ({url.place})", []).append(service.name)
    for place, names in users.items():
        yield f"{', '.join(names)} in {place}"


def _is_the_server(app: model.Application, url: DatabaseUrl) -> bool:
    """Return whether pg_dump backs the URL up from the host, because the env key DATABASE_URL has it too."""
    if app.database_server is None:
        return False
    server = parse_url(app.database_server.address)
    aliases = {"host.containers.internal": "127.0.0.1", "host.docker.internal": "127.0.0.1"}
    return server is not None and (server.host, server.name) == (aliases.get(url.host, url.host), url.name)


def _is_file_of_the_backup(app: model.Application, service: model.Service, url: DatabaseUrl) -> bool:
    """Return whether the URL names the SQLite file at DATABASE_PATH, by its path on the host or in the container."""
    if url.host or not app.database:
        return False
    path = posixpath.normpath(f"/{url.path.lstrip('/')}")
    if path == app.database:
        return True
    return any(
        path == posixpath.normpath(posixpath.join(mount.target, posixpath.relpath(app.database, mount.source)))
        for mount in service.mounts
        if app.database.startswith(f"{mount.source}/")
    )
