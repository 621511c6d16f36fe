"""The figures of the comparison: medians in a table, and the two ratios that the goals name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.ssh_log import SshCounts
from benchmarks.tables import markdown

_HEADINGS = (
    *("RTT ms", "tool", "wall s", "by hand s", "own share s", "(least to most)", "of wall"),
    *("connections", "executions"),
)
_GOALS = ("RTT ms", "own share, of Ansible's", "wall time, of pyinfra's")


@dataclass(frozen=True)
class Upgrade:
    """One upgrade by a tool: its wall time, and that of the same steps by hand."""

    tool: str
    rtt: int
    wall: float
    by_hand: float
    counted: SshCounts

    @property
    def share(self) -> float:
        """The tool's own share in seconds."""
        return self.wall - self.by_hand


def table(upgrades: Sequence[Upgrade]) -> str:
    """Return a table of medians, by distance, with the tools in the order of their first upgrade."""
    tools = list(dict.fromkeys(upgrade.tool for upgrade in upgrades))
    keys = sorted({(upgrade.rtt, tools.index(upgrade.tool)) for upgrade in upgrades})
    return markdown(_HEADINGS, [_cells(_of(upgrades, tools[tool], rtt)) for rtt, tool in keys], left=("tool",))


def ratios(upgrades: Sequence[Upgrade], own: str, ansible: str, pyinfra: str) -> str:
    """Return a table of what the goals bound: ratios of medians, at each distance that all three tools have."""
    rows = []
    for rtt in sorted({upgrade.rtt for upgrade in upgrades}):
        groups = [_of(upgrades, tool, rtt) for tool in (own, ansible, pyinfra)]
        if all(groups):
            ours, ansibles, pyinfras = groups
            share = median(upgrade.share for upgrade in ours) / median(upgrade.share for upgrade in ansibles)
            wall = median(upgrade.wall for upgrade in ours) / median(upgrade.wall for upgrade in pyinfras)
            rows.append((str(rtt), f"{share:.0%}", f"{wall:.0%}"))
    return markdown(_GOALS, rows)


def _of(upgrades: Sequence[Upgrade], tool: str, rtt: int) -> list[Upgrade]:
    return [upgrade for upgrade in upgrades if (upgrade.tool, upgrade.rtt) == (tool, rtt)]


def _cells(upgrades: Sequence[Upgrade]) -> tuple[str, ...]:
    shares = [upgrade.share for upgrade in upgrades]
    wall = median(upgrade.wall for upgrade in upgrades)
    return (
        str(upgrades[0].rtt),
        upgrades[0].tool,
        f"{wall:.1f}",
        f"{median(upgrade.by_hand for upgrade in upgrades):.1f}",
        f"{median(shares):.2f}",
        f"{min(shares):.2f} to {max(shares):.2f}",
        f"{median(shares) / wall:.0%}",
        str(max(upgrade.counted.connections for upgrade in upgrades)),
        str(max(upgrade.counted.executions for upgrade in upgrades)),
    )
