"""The version changes of a run, as messages show them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rolling_upgrade.engine.model import HostResult, Image, VersionChange, short_digest
from rolling_upgrade.engine.plan import Change, Plan


def version_changes(plans: Sequence[Plan]) -> Iterator[VersionChange]:
    """The changes of all plans; hosts with the same change are grouped."""
    hosts_by_change: dict[tuple[str, str, str], list[str]] = {}
    for plan in plans:
        for change in _changes(plan):
            hosts_by_change.setdefault(change, []).append(plan.host)
    for (what, before, after), hosts in hosts_by_change.items():
        yield VersionChange(what, before, after, () if len(hosts) == len(plans) else tuple(hosts))


def _changes(plan: Plan) -> Iterator[tuple[str, str, str]]:
    if plan.result is HostResult.RESTORED and plan.record:
        yield "data", "", plan.record.target
    for service in plan.services:
        if service.change is not Change.KEEP:
            yield service.service, *_versions(service.current, service.wanted)


def _versions(before: Image | None, after: Image) -> tuple[str, str]:
    """Two images by the parts that differ: references, else tags, else digests."""
    if before is None:
        return "", after.reference
    if before.repository != after.repository:
        return before.reference, after.reference
    if before.tag != after.tag or before.digest == after.digest:
        return before.tag or short_digest(before.digest), after.tag or short_digest(after.digest)
    return f"{before.tag} {short_digest(before.digest)}".strip(), f"{after.tag} {short_digest(after.digest)}".strip()
