"""The backups of many hosts, for people and programs. It reads nothing and judges nothing."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TextIO

from fabfile.model import Backup, Environment, Verdict
from fabfile.report.output import Output
from fabfile.report.text import duration, one_line, table


@dataclass(frozen=True)
class Listed:
    """One host's backups, oldest first, and its clock when it was asked, Unix seconds."""

    now: int
    backups: tuple[Backup, ...]


def render_backups(
    environment: Environment, listed: Mapping[str, Listed], lost: Mapping[str, str], *, json: bool, out: TextIO
) -> None:
    """Write every backup of each host, newest last; `lost` are hosts that gave no answer."""
    output = Output(out, environment.secrets)
    if json:
        from fabfile.report.json_lines import masked

        hosts: list[dict[str, Any]] = [
            {"host": name, "backups": [_object(one, found.now) for one in found.backups]}
            for name, found in listed.items()
        ]
        hosts += [{"host": name, "unreachable": why} for name, why in lost.items()]
        output.write(
            json_format.dumps(masked({"environment": environment.name, "hosts": hosts}, output), indent=2) + "\n"
        )
    else:
        lines = [line for name, found in listed.items() for line in _host_lines(name, found)]
        lines += [f"{name}  NOT REACHED: {one_line(why)}" for name, why in lost.items()]
        output.write(output.safe("\n".join(lines)) + "\n")
    output.flush()


def _host_lines(name: str, found: Listed) -> Iterator[str]:
    if not found.backups:
        yield f"{name}  no backups"
        return
    yield name
    head = ("", "BACKUP", "KIND", "AGE", "SIZE", "UPLOADS", "RELEASE", "VERIFIED")
    yield from table([head, *(_row(one, found.now) for one in found.backups)])
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
    said = "DAMAGED" if backup.verdict is Verdict.DAMAGED else "good"
    return f"{said}, {duration(now - backup.verified_at)} ago"


def _at(backup: Backup) -> datetime:
    """When it was begun, by its id."""
    return datetime.strptime(backup.id[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)


def _age(backup: Backup, now: int) -> str:
    return duration(now - _at(backup).timestamp())


def size(count: float) -> str:
    """A number of bytes in its largest unit: `512 B`, `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _object(backup: Backup, now: int) -> dict[str, Any]:
    return {
        "id": backup.id,
        "kind": backup.kind.value,
        "time": _at(backup).isoformat(),
        "age_seconds": round(now - _at(backup).timestamp()),
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
