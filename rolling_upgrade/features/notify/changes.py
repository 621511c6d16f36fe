"""The changes of a run, as messages show them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rolling_upgrade.engine.model import HostResult, Image, VersionChange
from rolling_upgrade.engine.plan import Change, Plan


def version_changes(plans: Sequence[Plan]) -> Iterator[VersionChange]:
    """The changes of all plans; hosts with the same change are grouped."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for plan in plans:
        for one in _changes(plan):
            found.setdefault(one, []).append(plan.host)
    for (what, before, after), hosts in found.items():
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
    if before.tag != after.tag:
        return before.tag or short(before), after.tag or short(after)
    if before.digest == after.digest:
        return after.tag or short(after), after.tag or short(after)
    return f"{before.tag} {short(before)}".strip(), f"{after.tag} {short(after)}".strip()


def short(image: Image) -> str:
    """The first 12 digits of an image's digest."""
    return image.digest.removeprefix("sha256:")[:12]
