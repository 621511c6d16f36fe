"""The plan of one host: a step for each missing resource."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.plan import Plan, Step
from rolling_upgrade.engine.preflight import Finding
from rolling_upgrade.engine.resource import Resource, as_root, kept

#: Packages may come from a slow mirror.
APPLY_SECONDS = 900


def lacking(output: str) -> dict[str, bool]:
    """Parse the output of a check: the ids of the missing resources, and whether setup can apply each.

    Raises Malformed for any other output.
    """
    missing = {}
    for line in untrusted.lines(output):
        id, _, verdict = line.rpartition(" ")
        if verdict not in {"ok", "drift", "hand"}:
            raise untrusted.Malformed(f"unexpected answer to a check: {untrusted.line(line)!r}")
        if verdict != "ok":
            missing[id] = verdict == "drift"
    return missing


def plan_items(
    host: str,
    items: Sequence[Resource],
    missing: Mapping[str, bool],
    *,
    action: str,
    setup_user: str,
    notes: tuple[str, ...] = (),
) -> Plan:
    """Plan a step for each missing resource; the plan is empty without one."""
    steps = tuple(
        Step(item.id, item.title, as_root(kept(item.apply), user=setup_user), APPLY_SECONDS)
        for item in items
        if missing.get(item.id) and item.apply is not None
    )
    return Plan(host, action, "", steps=steps, notes=notes if steps else ())


def findings(host: str, items: Sequence[Resource], missing: Mapping[str, bool]) -> tuple[Finding, ...]:
    """Return the missing resources that need manual work."""
    return tuple(
        Finding(host, f"{item.title}: missing", item.remedy) for item in items if missing.get(item.id) is False
    )
