"""The report of `inv access.list`: the keys on each host, compared with the directory of keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rolling_upgrade.console.text import one_line, table, unreachable_lines
from rolling_upgrade.errors import PROGRAM
from rolling_upgrade.features.access.keys import Holder


@dataclass(frozen=True)
class AccessReport:
    """The keys of one host, including missing ones, and the faults of its SSH server."""

    holders: tuple[Holder, ...]
    faults: tuple[str, ...] = ()

    @property
    def drift(self) -> bool:
        """Whether the host differs from the directory."""
        return bool(self.faults) or any(holder.standing.is_drift for holder in self.holders)


def access_lines(
    environment: str, hosts: Mapping[str, AccessReport], unreachable: Mapping[str, str], *, granted: Sequence[str]
) -> list[str]:
    """Return the granted names, the keys of each host, and the next command."""
    lines = [f"{environment}: granted to {', '.join(granted) or 'nobody'}", ""]
    lines += [line for name, access in hosts.items() for line in _host_lines(name, access)]
    lines += unreachable_lines(unreachable)
    if any(access.drift for access in hosts.values()):
        lines.append(
            f"The hosts differ from the directory of keys. Next: {PROGRAM} access.sync --env {environment} --dry-run"
        )
    return lines


def _host_lines(name: str, access: AccessReport) -> Iterator[str]:
    yield f"{name}  {'DIFFERS' if access.drift else 'matches the directory'}"
    yield from table([_row(holder) for holder in access.holders])
    yield from (f"  {one_line(fault)}" for fault in access.faults)
    yield ""


def _row(holder: Holder) -> tuple[str, ...]:
    options = f" with options {holder.options}" if holder.options else ""
    name = one_line(holder.name) or "no name"
    return ("", name, holder.key.fingerprint, holder.key.type, holder.standing.value, one_line(holder.place + options))


def access_json(
    environment: str, hosts: Mapping[str, AccessReport], unreachable: Mapping[str, str], *, granted: Sequence[str]
) -> dict[str, Any]:
    """Return the report as a JSON object."""
    objects = [_host_json(name, access) for name, access in hosts.items()]
    objects += [{"host": name, "unreachable": error} for name, error in unreachable.items()]
    return {"environment": environment, "granted": granted, "hosts": objects}


def _host_json(name: str, access: AccessReport) -> dict[str, Any]:
    keys = [
        {
            "name": holder.name,
            "fingerprint": holder.key.fingerprint,
            "type": holder.key.type,
            "standing": holder.standing.value.lower(),
            "file": holder.file,
            "block": holder.block,
            "options": holder.options,
        }
        for holder in access.holders
    ]
    return {"host": name, "drift": access.drift, "keys": keys, "faults": access.faults}
