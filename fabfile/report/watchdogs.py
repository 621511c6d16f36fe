"""How each host's watchdog stands, for people and programs. It looks at no host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fabfile.report.text import duration, table


@dataclass(frozen=True)
class Watchdog:
    """What was seen of one watchdog; `alive_seconds` is how long ago it looked last."""

    installed: bool
    runs: bool
    current: bool
    alive_seconds: int
    starts: int
    cpu_percent: float
    memory_bytes: int
    recoveries: int
    given_up: bool
    last: str

    @classmethod
    def read(cls, text: str, version: str) -> Watchdog:
        """Read what `commands.watchdog.status` printed; `version` is what this clone would install."""
        found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        memory = _memory(found.get("memory", ""))
        seconds = _number(found.get("uptime", "")) - _number(found.get("ActiveEnterTimestampMonotonic", "")) / 1e6
        cpu = _number(found.get("ticks", "")) / (_number(found.get("ticks_a_second", "")) or 100)
        return cls(
            installed=found.get("installed") == "yes",
            runs=found.get("ActiveState") == "active",
            current=found.get("version") == version,
            alive_seconds=_number(found.get("alive", "")),
            starts=_number(found.get("NRestarts", "")),
            cpu_percent=round(100 * cpu / seconds, 2) if seconds > 0 else 0.0,
            memory_bytes=1024 * _number(found.get("memory_kb", "")),
            recoveries=len(memory.get("recoveries", [])),
            given_up=bool(memory.get("given_up")),
            last=found.get("last", ""),
        )


def _memory(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text)["memory"])
    except (ValueError, KeyError, TypeError):
        return {}


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def watchdog_lines(seen: Mapping[str, Watchdog], lost: Mapping[str, str], environment: str) -> list[str]:
    """A line a host, and what to do where one does not watch."""
    rows = [("HOST", "WATCHDOG", "LOOKED", "RECOVERIES", "STARTED AGAIN", "LAST WORDS")]
    for name, one in seen.items():
        looked = f"{duration(one.alive_seconds)} ago" if one.runs else "-"
        rows.append((name, _state(one), looked, str(one.recoveries), str(one.starts), one.last))
    lines = table(rows)
    for name, one in seen.items():
        if not one.installed or not one.runs:
            lines.append(f"{name}: Next: inv monitor.install --env {environment} --hosts {name}")
        elif not one.current:
            lines.append(f"{name}: not what this clone would install: inv monitor.install --env {environment}")
        if one.given_up:
            lines.append(f"{name}: it gave up: a person has to look: inv inspect --env {environment} --host {name}")
    return lines + [f"{name}: NOT REACHED: {why}" for name, why in lost.items()]


def _state(one: Watchdog) -> str:
    if not one.installed:
        return "not installed"
    return ("gave up" if one.given_up else "runs") if one.runs else "DOES NOT RUN"


def watchdog_objects(seen: Mapping[str, Watchdog], lost: Mapping[str, str]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [{"host": name, **asdict(one)} for name, one in seen.items()] + [
        {"host": name, "error": why} for name, why in lost.items()
    ]
