"""The plan that makes one host's items as wanted: what of them is not, as steps. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fabfile.commands.item import Item, as_root
from fabfile.plans.preflight import Finding
from fabfile.plans.step import Plan, Step

#: Packages may have to come from far away.
APPLY_SECONDS = 900


def lacking(output: str) -> dict[str, bool]:
    """The ids that a check found not to be as wanted, and whether setup can make each.

    Raises ValueError for an answer that is no check's.
    """
    found = {}
    for line in output.splitlines():
        id, _, verdict = line.rpartition(" ")
        if verdict not in {"ok", "drift", "hand"}:
            raise ValueError(f"unexpected answer to a check: {line!r}")
        if verdict != "ok":
            found[id] = verdict == "drift"
    return found


def plan_items(
    host: str,
    items: Sequence[Item],
    missing: Mapping[str, bool],
    *,
    action: str,
    setup_user: str,
    notes: tuple[str, ...] = (),
) -> Plan:
    """The steps for the items that are missing; an empty plan when none is."""
    steps = tuple(
        Step(item.id, item.title, as_root(item.apply, user=setup_user), APPLY_SECONDS)
        for item in items
        if missing.get(item.id) and item.apply is not None
    )
    return Plan(host, action, "", steps=steps, notes=notes if steps else ())


def findings(host: str, items: Sequence[Item], missing: Mapping[str, bool]) -> tuple[Finding, ...]:
    """What is missing and has to be made by hand first."""
    return tuple(
        Finding(host, f"{item.title}: missing", item.remedy) for item in items if missing.get(item.id) is False
    )
