"""Refuse mounts that would give a container access to directories that the host relies on.

A container can replace anything it can write with a link, so no such directory may be inside a writable mount.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from rolling_upgrade.config import validators
from rolling_upgrade.config.resolution import Values
from rolling_upgrade.config.services import Services
from rolling_upgrade.engine.model import Application

#: Names in the application's own directory that this project uses; other names are free for data.
_KEPT = ("backups", "config", "journal", "live", "lock", "watchdog")
#: Names in the deploy user's home directory that grant access or contain programs.
_PERSONAL = (".config", ".local", ".ssh")
#: Directories that cannot be mounted, and nothing below them.
_SYSTEM = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr"),
    *("/run/docker.sock", "/run/podman", "/run/systemd", "/run/user", "/var/lib/containers", "/var/spool"),
)
#: Directories that cannot be mounted as a whole.
_SHARED = ("/home", "/root", "/run", "/tmp", "/var", "/var/lib", "/var/log", "/var/run", "/var/tmp")  # noqa: S108


@dataclass(frozen=True)
class _Place:
    """A directory named by an env key; `file` tells that the key names a file in it."""

    key: str
    path: str
    file: bool = False
    read_only: bool = False


def contains(directory: str, path: str) -> bool:
    """Return whether the path is the directory or inside it, by name."""
    return f"{posixpath.normpath(path)}/".startswith(f"{posixpath.normpath(directory)}/")


def home_of(user: str) -> str:
    """Return the home directory of a deploy user."""
    return "/root" if user == "root" else f"/home/{user}"


def check_mounts(app: Application, user: str, declared: Services, values: Values) -> None:
    """Report writable mounts of directories that the host relies on, and any mount of private directories."""
    mounts = tuple(dict.fromkeys(_mounts(declared, values)))
    for mount in mounts:
        why = _private(mount, app, user)
        if not why and not mount.read_only:
            why = _managed(mount, (*mounts, *_named(app))) or _system_directory(mount)
        if why:
            what = "a file in a directory of its own" if mount.file else "a directory of its own"
            values.add(mount.key, expected=f"{what}: the container gets all of {mount.path}, and {why}")


def _mounts(declared: Services, values: Values) -> Iterator[_Place]:
    for mount in (mount for service in declared.services for mount in service.mounts):
        path = values.read(mount.source, validators.FILE_IN_DIRECTORY if mount.parent else validators.HOST_PATH)
        if path:
            source = posixpath.normpath(posixpath.dirname(path) if mount.parent else path)
            yield _Place(mount.source, source, mount.parent, mount.read_only)


def _named(app: Application) -> Iterator[_Place]:
    """Yield the directories that backups and restores use."""
    database = posixpath.dirname(app.database)
    named = (
        _Place("DATABASE_PATH", database, file=True),
        _Place("DATABASE_BACKUP_PATH", app.database_backups),
        _Place("UPLOADS_PATH", app.uploads),
        _Place("UPLOADS_BACKUP_PATH", app.uploads_backups),
        _Place("CONFIG_PATH", app.config_path),
    )
    yield from (place for place in named if place.path)


def _private(mount: _Place, app: Application, user: str) -> str:
    for place, whose, kept in (
        (app.home, "which contains programs and secrets", _KEPT),
        (home_of(user), f"the home directory of {user}", _PERSONAL),
    ):
        if contains(mount.path, place):
            return f"it is or contains {place}, {whose}"
        for name in kept:
            if contains(f"{place}/{name}", mount.path):
                return f"it is inside {place}/{name}, which no container may access"
    return ""


def _managed(mount: _Place, places: tuple[_Place, ...]) -> str:
    """Explain an overlap with another directory. Two files may share a directory, services may share a mount."""
    for place in places:
        if place.key == mount.key or not contains(mount.path, place.path):
            continue
        if contains(place.path, mount.path) and place.file and mount.key != "UPLOADS_PATH":
            continue
        return f"it is or contains {place.path} of {place.key}, which the container could replace with a link"
    return ""


def _system_directory(mount: _Place) -> str:
    below = next((place for place in _SYSTEM if contains(place, mount.path)), "")
    if below or mount.path in _SHARED:
        return f"{below or mount.path} belongs to the system"
    return ""
