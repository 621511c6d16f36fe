"""What a prune found or deleted, in words and as JSON. It deletes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from fabfile.errors import RollingError
from fabfile.model import Pruned
from fabfile.model.masking import safe
from fabfile.report.text import count, table

#: What one host gave: its rows and the bytes that its disk gained, or why it gave nothing.
Found = tuple[tuple[Pruned, ...], int] | RollingError


def pruned_lines(found: Mapping[str, Found]) -> list[str]:
    """A table of all hosts, then a line for each of them."""
    rows = [
        (host, row.kind, size(row.bytes), row.verdict, row.name)
        for host, one in found.items()
        if not isinstance(one, RollingError)
        for row in one[0]
    ]
    lines = table([("HOST", "KIND", "SIZE", "", "NAME"), *rows]) if rows else []
    return [*lines, *(_host_line(host, one) for host, one in found.items())]


def _host_line(host: str, found: Found) -> str:
    if isinstance(found, RollingError):
        return str(found)
    rows, freed = found
    planned = [row for row in rows if row.verdict == "would go"]
    if planned:
        return (
            f"{host}: {count(len(planned), 'thing')} past retention, {size(sum(row.bytes for row in planned))} at most"
        )
    gone = [row for row in rows if row.verdict == "gone"]
    return f"{host}: {count(len(gone), 'thing')} deleted, {size(freed)} freed" if gone else f"{host}: nothing to delete"


def size(bytes: int) -> str:
    """A number of bytes as people read it."""
    amount, unit = float(bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit in {"B", "KiB"} else f"{amount:.1f} {unit}"


def pruned_json(found: Mapping[str, Found], secrets: Sequence[str]) -> str:
    """The same as one JSON object."""
    hosts = [
        {"host": host, "error": safe(str(one), secrets)}
        if isinstance(one, RollingError)
        else {
            "host": host,
            "freed_bytes": one[1],
            "things": [
                {"kind": row.kind, "name": safe(row.name, secrets), "bytes": row.bytes, "verdict": row.verdict}
                for row in one[0]
            ],
        }
        for host, one in found.items()
    ]
    return json.dumps({"hosts": hosts}, indent=2)
