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
_RESERVED = ("backups", "config", "journal", "live", "lock", "watchdog")
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
class Directory:
    """A directory named by an env key, or the directory of a file that the key names (`file`)."""

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
            why = _overlap(mount, (*mounts, *data_directories(app))) or _system_directory(mount)
        if why:
            what = "a file in a separate directory" if mount.file else "a separate directory"
            values.add(mount.key, expected=f"{what}: the container gets all of {mount.path}, and {why}")


def _mounts(declared: Services, values: Values) -> Iterator[Directory]:
    for mount in (mount for service in declared.services for mount in service.mounts):
        path = values.read(mount.source, validators.FILE_IN_DIRECTORY if mount.parent else validators.HOST_PATH)
        if path:
            source = posixpath.normpath(posixpath.dirname(path) if mount.parent else path)
            yield Directory(mount.source, source, mount.parent, mount.read_only)


def data_directories(app: Application) -> Iterator[Directory]:
    """Yield the configured directories of the application's data."""
    named = (
        Directory("DATABASE_PATH", posixpath.dirname(app.database), file=True),
        Directory("DATABASE_BACKUP_PATH", app.database_backups),
        Directory("UPLOADS_PATH", app.uploads),
        Directory("UPLOADS_BACKUP_PATH", app.uploads_backups),
        Directory("CONFIG_PATH", app.config_path),
    )
    yield from (directory for directory in named if directory.path)


def _private(mount: Directory, app: Application, user: str) -> str:
    for directory, description, reserved in (
        (app.home, "which contains programs and secrets", _RESERVED),
        (home_of(user), f"the home directory of {user}", _PERSONAL),
    ):
        if contains(mount.path, directory):
            return f"it is or contains {directory}, {description}"
        for name in reserved:
            if contains(f"{directory}/{name}", mount.path):
                return f"it is inside {directory}/{name}, which no container may access"
    return ""


def _overlap(mount: Directory, others: tuple[Directory, ...]) -> str:
    """Explain an overlap with another directory. Two files may share a directory, services may share a mount."""
    for other in others:
        if other.key == mount.key or not contains(mount.path, other.path):
            continue
        if contains(other.path, mount.path) and other.file and mount.key != "UPLOADS_PATH":
            continue
        return f"it is or contains {other.path} of {other.key}, which the container could replace with a link"
    return ""


def _system_directory(mount: Directory) -> str:
    parent = next((directory for directory in _SYSTEM if contains(directory, mount.path)), "")
    if parent or mount.path in _SHARED:
        return f"{parent or mount.path} belongs to the system"
    return ""
