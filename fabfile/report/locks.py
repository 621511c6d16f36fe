"""Who holds which host, for people and programs. It takes and frees nothing."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TextIO

from fabfile.model import Environment, Lock
from fabfile.report.output import Output
from fabfile.report.text import duration, one_line, table


@dataclass(frozen=True)
class Seen:
    """One host's lock at `now` on its own clock, whether a stage runs there, whether its holder is known to be dead."""

    lock: Lock | None
    now: int
    stage: bool = False
    dead: bool = False

    @property
    def left_seconds(self) -> int:
        """What is left of the lease; 0 or less when it is over."""
        return self.lock.expires_at - self.now if self.lock else 0


def render_locks(
    environment: Environment, seen: Mapping[str, Seen], lost: Mapping[str, str], *, json: bool, out: TextIO
) -> None:
    """Write a line a host: holder, reason, age, lease, stage, and what to do; `lost` gave no answer."""
    if json:
        from fabfile.report.json_lines import masked

        output = Output(out, environment.secrets)
        hosts = [_object(name, one, environment) for name, one in seen.items()]
        hosts += [{"host": name, "error": why} for name, why in lost.items()]
        output.write(json_format.dumps(masked({"environment": environment.name, "hosts": hosts}, output), indent=2))
        output.write("\n")
        output.flush()
        return
    head = ("HOST", "HOLDER", "FOR", "AGE", "LEASE", "STAGE")
    lines = table([head, *(_row(name, one) for name, one in seen.items())])
    lines += [f"{name}: {_origin(one.lock)}" for name, one in seen.items() if one.lock and _origin(one.lock)]
    lines += [f"{name}: {advice(one, environment.name)}" for name, one in seen.items() if one.lock or one.stage]
    lines += [f"{name}: NOT REACHED: {one_line(why)}" for name, why in lost.items()]
    tell(lines, environment, out)


def tell(lines: Sequence[str], environment: Environment, out: TextIO) -> None:
    """Write lines, masked and clean."""
    Output(out, environment.secrets).show(lines)


def advice(seen: Seen, environment: str) -> str:
    """What a person does about the lock."""
    lock = seen.lock
    if lock is None:
        return "a stage runs without a lock: the next run waits for it"
    if seen.left_seconds <= 0:
        return "its lease is over: the next run takes it over"
    if seen.dead:
        return "its process, on this machine, is gone: the next run from here takes it over"
    if seen.stage:
        return "a stage runs now: wait for it"
    if lock.pid <= 0:
        return f"taken by hand: ask {one_line(lock.owner)}; inv lock.release --env {environment} frees it"
    return "wait for it; if its run is dead, its lease ends by itself"


def _row(name: str, seen: Seen) -> tuple[str, ...]:
    lock, stage = seen.lock, "runs" if seen.stage else "-"
    if lock is None:
        return (name, "free", "-", "-", "-", stage)
    how = f"process {lock.pid}" if lock.pid > 0 else "by hand"
    holder = one_line(f"{lock.owner}@{lock.workstation} ({how})")
    lease = f"{duration(seen.left_seconds)} left" if seen.left_seconds > 0 else "over"
    return (name, holder, one_line(lock.reason), duration(seen.now - lock.acquired_at), lease, stage)


def _origin(lock: Lock) -> str:
    """What the host itself saw of the holder."""
    parts = [f"from {lock.client}" if lock.client else "", f"with the key {lock.key}" if lock.key else ""]
    said = " ".join(part for part in parts if part)
    return one_line(f"the holder came {said}") if said else ""


def _object(name: str, seen: Seen, environment: Environment) -> dict[str, object]:
    if seen.lock is None:
        return {"host": name, "free": True, "stage": seen.stage}
    fields = {key: value for key, value in asdict(seen.lock).items() if key != "token"}
    told = {"age_seconds": seen.now - seen.lock.acquired_at, "left_seconds": seen.left_seconds}
    marks = {"stage": seen.stage, "dead": seen.dead, "advice": advice(seen, environment.name)}
    return {"host": name, "free": False, **fields, **told, **marks}
