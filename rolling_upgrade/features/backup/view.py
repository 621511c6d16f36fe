"""The backups of each host as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from rolling_upgrade.console.text import duration, one_line, table, unreachable_lines
from rolling_upgrade.engine.untrusted import size
from rolling_upgrade.features.backup.manifest import Backup, Verdict


@dataclass(frozen=True)
class HostBackups:
    """The backups of one host, oldest first, and the time on its clock (Unix seconds) when it listed them."""

    now: int
    backups: tuple[Backup, ...]


def backup_lines(hosts: Mapping[str, HostBackups], unreachable: Mapping[str, str]) -> list[str]:
    """Return a table of the backups of each host, newest last."""
    lines = [line for name, listed in hosts.items() for line in _host_lines(name, listed)]
    return [*lines, *unreachable_lines(unreachable)]


def _host_lines(name: str, listed: HostBackups) -> Iterator[str]:
    if not listed.backups:
        yield f"{name}  no backups"
        return
    yield name
    head = ("", "BACKUP", "KIND", "AGE", "SIZE", "UPLOADS", "RELEASE", "VERIFIED")
    yield from table([head, *(_row(backup, listed.now) for backup in listed.backups)])
    yield ""


def _row(backup: Backup, now: int) -> tuple[str, ...]:
    if backup.problem:
        return ("", backup.id, "UNUSABLE", _age(backup, now), one_line(backup.problem))
    files = "none" if backup.uploads is None else f"{backup.uploads} ({size(backup.uploads_bytes)})"
    tags = dict.fromkeys(image.partition("@")[0].rpartition(":")[2] for _, image in backup.services)
    release = f"{', '.join(tags)} ({backup.release})" if tags else "-"
    return (
        "",
        backup.id,
        backup.kind.value,
        _age(backup, now),
        size(backup.bytes),
        files,
        one_line(release),
        _verified(backup, now),
    )


def _verified(backup: Backup, now: int) -> str:
    if backup.verdict is Verdict.UNVERIFIED:
        return "no"
    verdict = "DAMAGED" if backup.verdict is Verdict.DAMAGED else "good"
    return f"{verdict}, {duration(now - backup.verified_at)} ago"


def _time(backup: Backup) -> datetime:
    """Return the start time, which is part of the id."""
    return datetime.strptime(backup.id[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)


def _age(backup: Backup, now: int) -> str:
    return duration(now - _time(backup).timestamp())


def backup_json(environment: str, hosts: Mapping[str, HostBackups], unreachable: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON object of the backups."""
    objects: list[dict[str, Any]] = [
        {"host": name, "backups": [_backup_json(backup, listed.now) for backup in listed.backups]}
        for name, listed in hosts.items()
    ]
    objects += [{"host": name, "unreachable": error} for name, error in unreachable.items()]
    return {"environment": environment, "hosts": objects}


def _backup_json(backup: Backup, now: int) -> dict[str, Any]:
    return {
        "id": backup.id,
        "kind": backup.kind.value,
        "time": _time(backup).isoformat(),
        "age_seconds": round(now - _time(backup).timestamp()),
        "bytes": backup.bytes,
        "database": backup.database or None,
        "rows": backup.rows,
        "uploads": backup.uploads,
        "uploads_bytes": backup.uploads_bytes,
        "release": backup.release,
        "services": dict(backup.services),
        "verified": backup.verdict.value,
        "verified_at": backup.verified_at or None,
        "problem": backup.problem or None,
    }
