"""What a run changes from what to what, as people are told it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fabfile.model import HostResult, Image, Passage
from fabfile.plans.step import Change, Plan


def passages(plans: Sequence[Plan]) -> Iterator[Passage]:
    """What changes from what to what, hosts that change alike together."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for plan in plans:
        for one in _changes(plan):
            found.setdefault(one, []).append(plan.host)
    for (what, before, after), hosts in found.items():
        yield Passage(what, before, after, () if len(hosts) == len(plans) else tuple(hosts))


def _changes(plan: Plan) -> Iterator[tuple[str, str, str]]:
    if plan.result is HostResult.RESTORED and plan.record:
        yield "data", "", plan.record.target
    for service in plan.services:
        if service.change is not Change.KEEP:
            yield service.service, *_ways(service.current, service.wanted)


def _ways(before: Image | None, after: Image) -> tuple[str, str]:
    """Two images by what tells them apart: tags, else whole references, else digests."""
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
    return image.digest.removeprefix("sha256:")[:12]
