"""The parts of a deploy's time, and a table of medians."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.ssh_log import SshCounts
from benchmarks.tables import markdown

_HEADINGS = (
    *("hosts", "RTT ms", "wall s", "by hand s", "own share s", "(least to most)", "of wall"),
    *("to plan s", "lock s", "in steps s", "to exit s", "connections", "executions"),
)


@dataclass(frozen=True)
class Parts:
    """The parts of the overhead in seconds.

    `to_plan`: start, configuration, connection, observation, digests, plan. `lock`: until the first step.
    `in_steps`: until the end of the last step, minus the time of the same steps by hand. `to_exit`: the rest.
    """

    to_plan: float
    lock: float
    in_steps: float
    to_exit: float

    @property
    def share(self) -> float:
        """The overhead in seconds."""
        return self.to_plan + self.lock + self.in_steps + self.to_exit


@dataclass(frozen=True)
class MeasuredDeploy:
    """One deploy, the seconds of the same steps by hand, and what the SSH server of the busiest host counted."""

    hosts: int
    rtt: int
    by_hand: float
    parts: Parts
    counted: SshCounts

    @property
    def wall(self) -> float:
        """The seconds that the operator waits."""
        return self.by_hand + self.parts.share


def read_parts(events: Sequence[Mapping[str, Any]], started_at: float, ended_at: float, by_hand: float) -> Parts:
    """Divide the time of a deploy (Unix seconds) by its events."""
    started = [event for event in events if event["phase"] == "started"]
    lock = min(event["at"] for event in started if event["step"] == "lock")
    first = min(event["at"] for event in started if event["step"] != "lock")
    last = max(event["at"] for event in events if event["phase"] == "done")
    return Parts(lock - started_at, first - lock, last - first - by_hand, ended_at - last)


def table(deploys: Sequence[MeasuredDeploy]) -> str:
    """Return a table with one row per number of hosts and distance: medians, the range, and the largest counts."""
    keys = sorted({(deploy.hosts, deploy.rtt) for deploy in deploys})
    lines = [[deploy for deploy in deploys if (deploy.hosts, deploy.rtt) == key] for key in keys]
    return markdown(_HEADINGS, map(_cells, lines))


def _cells(deploys: Sequence[MeasuredDeploy]) -> tuple[str, ...]:
    shares = [deploy.parts.share for deploy in deploys]
    wall = median(deploy.wall for deploy in deploys)
    parts = [
        median(deploy.parts.to_plan for deploy in deploys),
        median(deploy.parts.lock for deploy in deploys),
        median(deploy.parts.in_steps for deploy in deploys),
        median(deploy.parts.to_exit for deploy in deploys),
    ]
    return (
        str(deploys[0].hosts),
        str(deploys[0].rtt),
        f"{wall:.1f}",
        f"{median(deploy.by_hand for deploy in deploys):.1f}",
        f"{median(shares):.2f}",
        f"{min(shares):.2f} to {max(shares):.2f}",
        f"{median(shares) / wall:.0%}",
        *(f"{part:.2f}" for part in parts),
        str(max(deploy.counted.connections for deploy in deploys)),
        str(max(deploy.counted.executions for deploy in deploys)),
    )
