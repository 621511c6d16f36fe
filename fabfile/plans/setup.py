"""The plan that prepares one host: what of the items is not as wanted, as steps. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from fabfile.commands.setup import Item, as_root
from fabfile.plans.preflight import Finding
from fabfile.plans.step import Plan, Step

APPLY_SECONDS = 180


def drift(output: str) -> tuple[str, ...]:
    """The ids that a check found not to be as wanted. Raises ValueError for an answer that is no check's."""
    found = []
    for line in output.splitlines():
        id, _, verdict = line.rpartition(" ")
        if verdict not in {"ok", "drift"}:
            raise ValueError(f"unexpected answer to a check: {line!r}")
        if verdict == "drift":
            found.append(id)
    return tuple(found)


def plan_setup(host: str, items: Sequence[Item], missing: Sequence[str], *, setup_user: str) -> Plan:
    """The steps for the items that are missing; an empty plan when none is."""
    steps = tuple(
        Step(item.id, item.title, as_root(item.apply, user=setup_user), APPLY_SECONDS)
        for item in items
        if item.id in missing and item.apply is not None
    )
    return Plan(host, "setup", "", steps=steps)


def findings(host: str, items: Sequence[Item], missing: Sequence[str]) -> tuple[Finding, ...]:
    """What is missing and has to be made by hand first."""
    return tuple(
        Finding(host, f"{item.title}: missing", item.remedy)
        for item in items
        if item.id in missing and item.apply is None
    )
