"""Who can log in to each host, for people and programs. It judges nothing."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from fabfile.model import Environment, Holder
from fabfile.report.output import Output
from fabfile.report.text import one_line, table


@dataclass(frozen=True)
class Told:
    """One host: everybody who can log in or should, and what else is not as it is to be."""

    holders: tuple[Holder, ...]
    faults: tuple[str, ...] = ()

    @property
    def drift(self) -> bool:
        """Whether the host is not as the folder says."""
        return bool(self.faults) or any(holder.standing.is_drift for holder in self.holders)


def render_access(
    environment: Environment,
    told: Mapping[str, Told],
    lost: Mapping[str, str],
    *,
    granted: Sequence[str],
    json: bool,
    out: TextIO,
) -> None:
    """Write who the folder lets in and, for each host, who gets in; `lost` are hosts that gave no answer."""
    output = Output(out, environment.secrets)
    if json:
        from fabfile.report.json_lines import masked

        hosts = [_object(name, one) for name, one in told.items()]
        hosts += [{"host": name, "unreachable": why} for name, why in lost.items()]
        whole = {"environment": environment.name, "granted": list(granted), "hosts": hosts}
        output.write(json_format.dumps(masked(whole, output), indent=2) + "\n")
        output.flush()
        return
    lines = [f"{environment.name}: granted to {', '.join(granted) or 'nobody'}", ""]
    lines += [line for name, one in told.items() for line in _lines(name, one)]
    lines += [f"{name}  NOT REACHED: {one_line(why)}" for name, why in lost.items()]
    if any(one.drift for one in told.values()):
        lines.append(f"Folder and hosts differ. Next: inv access.sync --env {environment.name} --dry-run")
    output.show(lines)


def _lines(name: str, told: Told) -> Iterator[str]:
    yield f"{name}  {'DIFFERS' if told.drift else 'as the folder says'}"
    yield from table([_row(holder) for holder in told.holders])
    yield from (f"  {one_line(fault)}" for fault in told.faults)
    yield ""


def _row(holder: Holder) -> tuple[str, ...]:
    options = f" with options {holder.options}" if holder.options else ""
    who = one_line(holder.name) or "no name"
    return ("", who, holder.key.fingerprint, holder.key.type, holder.standing.value, one_line(holder.place + options))


def _object(name: str, told: Told) -> dict[str, object]:
    holders = [
        {
            "name": holder.name,
            "fingerprint": holder.key.fingerprint,
            "type": holder.key.type,
            "standing": holder.standing.value.lower(),
            "file": holder.file,
            "block": holder.block,
            "options": holder.options,
        }
        for holder in told.holders
    ]
    return {"host": name, "drift": told.drift, "keys": holders, "faults": list(told.faults)}
