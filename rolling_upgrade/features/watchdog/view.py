"""The state of each host's watchdog as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rolling_upgrade.console.text import duration, table, unreachable_lines
from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.errors import PROGRAM


@dataclass(frozen=True)
class Watchdog:
    """The state of one watchdog; `alive_seconds` is the age of its last check."""

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
        """Parse the output of `shell.status`; `version` is the version that this clone would install."""
        found = dict(line.split("=", 1) for line in untrusted.lines(text) if "=" in line)
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
            recoveries=len(recoveries) if isinstance(recoveries := memory.get("recoveries"), list) else 0,
            given_up=bool(memory.get("given_up")),
            last=found.get("last", ""),
        )


def _memory(text: str) -> dict[str, Any]:
    try:
        found = untrusted.json_object(text).get("memory")
    except untrusted.Malformed:
        return {}
    return found if isinstance(found, dict) else {}


def _number(text: str) -> int:
    return untrusted.integer(text, default=0)


def watchdog_lines(watchdogs: Mapping[str, Watchdog], unreachable: Mapping[str, str], environment: str) -> list[str]:
    """Return a table of the watchdogs, and the next command for each that does not run."""
    rows = [("HOST", "WATCHDOG", "LAST CHECK", "RECOVERIES", "RESTARTS", "LAST OUTPUT")]
    for name, found in watchdogs.items():
        looked = f"{duration(found.alive_seconds)} ago" if found.runs else "-"
        rows.append((name, _state(found), looked, str(found.recoveries), str(found.starts), found.last))
    lines = table(rows)
    for name, found in watchdogs.items():
        if not found.installed or not found.runs:
            lines.append(f"{name}: Next: {PROGRAM} monitor.install --env {environment} --hosts {name}")
        elif not found.current:
            lines.append(
                f"{name}: differs from this clone's watchdog. Next: {PROGRAM} monitor.install --env {environment}"
            )
        if found.given_up:
            lines.append(
                f"{name}: gave up, recovery needs an operator. Next: {PROGRAM} inspect --env {environment} --host {name}"
            )
    return [*lines, *unreachable_lines(unreachable)]


def _state(found: Watchdog) -> str:
    if not found.installed:
        return "not installed"
    return ("gave up" if found.given_up else "running") if found.runs else "NOT RUNNING"


def watchdog_json(
    watchdogs: Mapping[str, Watchdog], unreachable: Mapping[str, str], environment: str
) -> dict[str, Any]:
    """Return the JSON object of the same."""
    hosts: list[dict[str, Any]] = [{"host": name, **to_plain(found)} for name, found in watchdogs.items()]
    hosts += [{"host": name, "error": error} for name, error in unreachable.items()]
    return {"environment": environment, "hosts": hosts}
