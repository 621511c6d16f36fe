"""Format plans: the changes of each host and service, and for a dry run every command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rolling_upgrade.console.text import count, duration, indent, one_line, table
from rolling_upgrade.engine.model import Color, Image, short_digest
from rolling_upgrade.engine.plan import Change, Plan, ServicePlan, Step, step_groups


def plan_lines(plans: Sequence[Plan], *, scripts: bool, batches: Sequence[Sequence[str]] = ()) -> list[str]:
    """Return the plans of all hosts as lines; hosts with the same plan share a block, and the count is last."""
    blocks: dict[tuple[str, ...], list[str]] = {}
    for plan in plans:
        blocks.setdefault(tuple(_host_lines(plan, scripts=scripts)), []).append(plan.host)
    lines = [_heading(plans), ""]
    for body, hosts in blocks.items():
        lines += [", ".join(hosts), *body, ""]
    if len(plans) > 1 and len(batches) > 1:
        lines += ["Order", *(f"  {at}. {', '.join(hosts)}" for at, hosts in enumerate(batches, 1)), ""]
    return [*lines, count_line(plans)]


def count_line(plans: Sequence[Plan]) -> str:
    """Summarise the plans in one line for the confirmation: `2 hosts: 2 services to upgrade, 0 unchanged`."""
    hosts = count(len(plans), "host")
    if not any(plan.services for plan in plans):
        ready = sum(plan.empty for plan in plans)
        return f"{hosts}: {len(plans) - ready} to change, {ready} unchanged"
    if plans[0].action == "restore":
        return f"{hosts}: data to restore, services unchanged"
    tallies = [Counter(service.change for service in plan.services) for plan in plans]
    equal = all(tally == tallies[0] for tally in tallies)
    tally = tallies[0] if equal else sum(tallies, Counter[Change]())
    where = "" if len(plans) < 2 else " on each host" if equal else " in all"
    verb = "roll back" if plans[0].action == "rollback" else "upgrade"
    first = f", {tally[Change.FIRST]} to start for the first time" if tally[Change.FIRST] else ""
    replace = f"{count(tally[Change.REPLACE], 'service')} to {verb}"
    return f"{hosts}: {replace}{first}, {tally[Change.KEEP]} unchanged{where}"


def _heading(plans: Sequence[Plan]) -> str:
    if not plans:
        return "No hosts, no plan."
    return f"Plan: {plans[0].action} {plans[0].run_id}".rstrip() + f", {count(len(plans), 'host')}"


def _host_lines(plan: Plan, *, scripts: bool) -> Iterator[str]:
    rows = [(service.service, place(service)) for service in plan.services]
    named = {service.service: service for service in plan.services}
    for service_name, line in zip(named, table([("", *row) for row in rows]), strict=True):
        yield line
        yield from _reasons(named[service_name])
    for note in plan.notes:
        yield f"  {one_line(note)}"
    if plan.empty:
        yield "  nothing to do"
    elif scripts:
        yield from _script_lines(plan)
    else:
        yield from _step_titles(plan)


def place(service: ServicePlan) -> str:
    """Return the image and color of a service before and after: `v1 (3f2a…) blue → v2 (9d8c…) green`."""
    wanted = _running(service.wanted, service.color)
    if service.change is Change.KEEP:
        return f"{wanted}, unchanged"
    if service.current is None:
        return f"nothing → {wanted}"
    return f"{_running(service.current, service.current_color)} → {wanted}"


def _running(image: Image, color: Color | None) -> str:
    digest = f" ({short_digest(image.digest)})" if image.digest else ""
    return f"{image.tag or 'latest'}{digest}{f' {color.value}' if color else ''}"


def _reasons(service: ServicePlan) -> Iterator[str]:
    if service.reasons:
        yield f"    because {one_line('; '.join(service.reasons))}"
    if service.env_changes:
        yield f"    environment keys: {one_line(', '.join(service.env_changes))}"


def _sections(plan: Plan) -> tuple[tuple[str, tuple[Step, ...]], ...]:
    return (
        ("lock", plan.acquire),
        ("prepare", plan.prepare),
        ("release", plan.release),
        ("run", plan.steps),
        ("finish", plan.finalize),
    )


def _step_titles(plan: Plan) -> Iterator[str]:
    rows = [
        ("", section if at == 0 else "", title)
        for section, steps in _sections(plan)
        for at, title in enumerate(title for group in step_groups(steps) for title in _group_titles(group))
    ]
    yield from table(rows)


def _group_titles(group: Sequence[Step]) -> list[str]:
    titles = [one_line(step.title) for step in group]
    return titles if len(group) == 1 else ["at the same time:", *(f"  {title}" for title in titles)]


def _script_lines(plan: Plan) -> Iterator[str]:
    for section, steps in _sections(plan):
        for group in step_groups(steps):
            for step in group:
                others = " and ".join(other.id for other in group if other is not step)
                yield from _step_lines(f"{section}, at the same time as {others}" if others else section, step)
    for step in plan.abort:
        yield from _step_lines("after an undo", step)


def _step_lines(when: str, step: Step) -> Iterator[str]:
    yield f"  # {step.id}: {one_line(step.title)} ({when}, at most {duration(step.timeout_seconds)})"
    yield from indent(step.script.masked, "    ")
    if step.undo is not None:
        yield f"  # only to undo {step.id}: {one_line(step.undo_title) or 'reverse it'}"
        yield from indent(step.undo.masked, "    ")
