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
class WatchdogStatus:
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
    def read(cls, text: str, version: str) -> WatchdogStatus:
        """Parse the output of `shell.status`; `version` is the version that this clone would install."""
        values = dict(line.split("=", 1) for line in untrusted.lines(text) if "=" in line)
        memory = _memory(values.get("memory", ""))
        seconds = _number(values.get("uptime", "")) - _number(values.get("ActiveEnterTimestampMonotonic", "")) / 1e6
        cpu = _number(values.get("ticks", "")) / (_number(values.get("ticks_a_second", "")) or 100)
        return cls(
            installed=values.get("installed") == "yes",
            runs=values.get("ActiveState") == "active",
            current=values.get("version") == version,
            alive_seconds=_number(values.get("alive", "")),
            starts=_number(values.get("NRestarts", "")),
            cpu_percent=round(100 * cpu / seconds, 2) if seconds > 0 else 0.0,
            memory_bytes=1024 * _number(values.get("memory_kb", "")),
            recoveries=len(recoveries) if isinstance(recoveries := memory.get("recoveries"), list) else 0,
            given_up=bool(memory.get("given_up")),
            last=values.get("last", ""),
        )


def _memory(text: str) -> dict[str, Any]:
    try:
        memory = untrusted.json_object(text).get("memory")
    except untrusted.Malformed:
        return {}
    return memory if isinstance(memory, dict) else {}


def _number(text: str) -> int:
    return untrusted.integer(text, default=0)


def watchdog_lines(
    watchdogs: Mapping[str, WatchdogStatus], unreachable: Mapping[str, str], environment: str
) -> list[str]:
    """Return a table of the watchdogs, and the next command for each that does not run."""
    rows = [("HOST", "WATCHDOG", "LAST CHECK", "RECOVERIES", "RESTARTS", "LAST OUTPUT")]
    for name, status in watchdogs.items():
        last_check = f"{duration(status.alive_seconds)} ago" if status.runs else "-"
        rows.append((name, _state(status), last_check, str(status.recoveries), str(status.starts), status.last))
    lines = table(rows)
    for name, status in watchdogs.items():
        if not status.installed or not status.runs:
            lines.append(f"{name}: Next: {PROGRAM} monitor.install --env {environment} --hosts {name}")
        elif not status.current:
            lines.append(
                f"{name}: differs from this clone's watchdog. Next: {PROGRAM} monitor.install --env {environment}"
            )
        if status.given_up:
            lines.append(
                f"{name}: gave up, recovery needs an operator. Next: {PROGRAM} inspect --env {environment} --host {name}"
            )
    return [*lines, *unreachable_lines(unreachable)]


def _state(status: WatchdogStatus) -> str:
    if not status.installed:
        return "not installed"
    return ("gave up" if status.given_up else "running") if status.runs else "NOT RUNNING"


def watchdog_json(
    watchdogs: Mapping[str, WatchdogStatus], unreachable: Mapping[str, str], environment: str
) -> dict[str, Any]:
    """Return the states and errors as a JSON object."""
    hosts: list[dict[str, Any]] = [{"host": name, **to_plain(status)} for name, status in watchdogs.items()]
    hosts += [{"host": name, "error": error} for name, error in unreachable.items()]
    return {"environment": environment, "hosts": hosts}
