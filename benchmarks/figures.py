"""What was measured and how it is told: the parts of a deploy's time, medians, and a Markdown table. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

_HEADINGS = (
    *("hosts", "RTT ms", "wall s", "by hand s", "own share s", "(least to most)", "of wall"),
    *("to plan s", "lock s", "in steps s", "to exit s", "connections", "executions"),
)


@dataclass(frozen=True)
class Parts:
    """Where the suite's own seconds went; together they are its share.

    `to_plan`: start, configuration, connecting, looking, digests, plan. `lock`: until the first step began.
    `in_steps`: from there to the end of the last step, less what that costs by hand. `to_exit`: the rest.
    """

    to_plan: float
    lock: float
    in_steps: float
    to_exit: float

    @property
    def share(self) -> float:
        """Seconds that the suite adds."""
        return self.to_plan + self.lock + self.in_steps + self.to_exit


@dataclass(frozen=True)
class Counted:
    """What the SSH server of the busiest host saw."""

    connections: int
    executions: int


@dataclass(frozen=True)
class Measured:
    """One deploy by the suite, and the seconds that the same one took by hand."""

    hosts: int
    rtt: int
    by_hand: float
    parts: Parts
    counted: Counted

    @property
    def wall(self) -> float:
        """Seconds as the one who typed the command waits for them."""
        return self.by_hand + self.parts.share


def read_parts(events: Sequence[Mapping[str, Any]], began: float, ended: float, by_hand: float) -> Parts:
    """Divide a deploy that took from `began` to `ended`, Unix seconds, by the events it told."""
    started = [event for event in events if event["phase"] == "started"]
    lock = min(event["at"] for event in started if event["step"] == "lock")
    first = min(event["at"] for event in started if event["step"] != "lock")
    last = max(event["at"] for event in events if event["phase"] == "done")
    return Parts(lock - began, first - lock, last - first - by_hand, ended - last)


def table(measured: Sequence[Measured]) -> str:
    """A line for each number of hosts and distance, medians but for the range and the counts."""
    kinds = sorted({(one.hosts, one.rtt) for one in measured})
    lines = [[one for one in measured if (one.hosts, one.rtt) == kind] for kind in kinds]
    rule = ("---:",) * len(_HEADINGS)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (_HEADINGS, rule, *map(_cells, lines)))


def _cells(alike: Sequence[Measured]) -> tuple[str, ...]:
    shares = [one.parts.share for one in alike]
    wall = median(one.wall for one in alike)
    parts = [
        median(one.parts.to_plan for one in alike),
        median(one.parts.lock for one in alike),
        median(one.parts.in_steps for one in alike),
        median(one.parts.to_exit for one in alike),
    ]
    return (
        str(alike[0].hosts),
        str(alike[0].rtt),
        f"{wall:.1f}",
        f"{median(one.by_hand for one in alike):.1f}",
        f"{median(shares):.2f}",
        f"{min(shares):.2f} to {max(shares):.2f}",
        f"{median(shares) / wall:.0%}",
        *(f"{part:.2f}" for part in parts),
        str(max(one.counted.connections for one in alike)),
        str(max(one.counted.executions for one in alike)),
    )
