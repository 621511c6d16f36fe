"""Hosts made as wanted, item by item: check what is not, show it, confirm, make it, check again. The story only.

A second run finds nothing to do; one that was cut off goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fabfile.commands.item import Item, as_root, check
from fabfile.commands.lock import HELD_STATUS
from fabfile.commands.teardown import LOCK
from fabfile.errors import ExitCode, HostUnreachable, LockHeld, PreflightError, RollingError, StepFailed
from fabfile.model import Event, HostResult, HostSummary, Phase, Summary
from fabfile.plans import setup as planning
from fabfile.plans.step import Plan
from fabfile.remote import observe
from fabfile.remote.host import Host
from fabfile.report import Reporter
from fabfile.workflows.fleet import Fleet

CHECK_SECONDS = 120.0


@dataclass(frozen=True)
class Work:
    """What is done to the hosts: its name, the words for its end, each host's items and what its plan adds to them."""

    action: str
    result: HostResult
    nothing: str
    items: Mapping[str, tuple[Item, ...]]
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def plans(fleet: Fleet, work: Work) -> list[Plan]:
    """What each host lacks. Raises PreflightError when something must be made by hand first."""
    found = observe.on_each(
        fleet.hosts, fleet.environment.rollout.parallel, lambda host: _lacking(host, work.items[host.name], fleet)
    )
    lost = [row for row in found.values() if isinstance(row, HostUnreachable)]
    if lost:
        raise HostUnreachable("\n".join(str(error) for error in lost))
    lacking = {name: row for name, row in found.items() if isinstance(row, dict)}
    held = [name for name, ids in lacking.items() if ids.get(LOCK) is False]
    if held:
        raise LockHeld(
            f"another run holds {', '.join(held)}; nothing was touched",
            next_step="inv lock.status, then wait for its end",
        )
    refusals = [finding for name, ids in lacking.items() for finding in planning.findings(name, work.items[name], ids)]
    if refusals:
        listed = "\n  ".join(str(finding) for finding in refusals)
        raise PreflightError(f"something has to be made by hand first; nothing was touched.\n  {listed}")
    users = {name: target.setup_user for name, target in fleet.targets.items()}
    return [
        planning.plan_items(
            name,
            work.items[name],
            ids,
            action=work.action,
            setup_user=users[name],
            notes=work.notes.get(name, ()),
        )
        for name, ids in lacking.items()
    ]


def converge(
    fleet: Fleet, work: Work, planned: Sequence[Plan], reporter: Reporter, confirm: Callable[[], None]
) -> ExitCode:
    """Ask, then do what the plans say on every host at the same time, and report."""
    began = time.time()
    if any(not plan.empty for plan in planned):
        confirm()
    by_name = {plan.host: plan for plan in planned}
    rows = observe.on_each(
        fleet.hosts,
        fleet.environment.rollout.parallel,
        lambda host: _make(host, by_name[host.name], fleet, work, reporter),
    )
    summary = _summary(fleet.environment.name, work, list(rows.items()), time.time() - began)
    reporter.summary(summary)
    return ExitCode(summary.exit_code)


def _lacking(host: Host, items: Sequence[Item], fleet: Fleet) -> dict[str, bool]:
    user = fleet.targets[host.name].setup_user
    answer = host.run(as_root(check(tuple(items)), user=user), timeout_seconds=CHECK_SECONDS)
    try:
        if not answer.ok:
            raise ValueError(answer.last_words)
        return planning.lacking(answer.output)
    except ValueError as error:
        raise HostUnreachable(
            f"{host.name}: cannot look at the host as root through {user}: {error}",
            next_step="set setup_user in hosts.yaml to root or to a user with passwordless sudo",
        ) from error


def _make(host: Host, plan: Plan, fleet: Fleet, work: Work, reporter: Reporter) -> HostSummary:
    if plan.empty:
        return HostSummary(host.name, HostResult.UNCHANGED, 0)
    began = time.time()
    try:
        for step in plan.steps:
            _run(host, plan, step.id, reporter)
        left = _lacking(host, work.items[host.name], fleet)
        if left:
            raise StepFailed(_still(host.name, work, left))
    except RollingError as error:
        return HostSummary(host.name, HostResult.UNKNOWN, time.time() - began, cause=str(error))
    reporter.event(Event(time.time(), Phase.DONE, work.result.value, host.name))
    return HostSummary(host.name, work.result, time.time() - began)


def _still(host: str, work: Work, left: Mapping[str, bool]) -> str:
    rows = [f"{item.title}. {item.remedy}".rstrip(". ") for item in work.items[host] if item.id in left]
    return f"{host}: still not as wanted after {work.action}:\n  " + "\n  ".join(rows)


def _run(host: Host, plan: Plan, id: str, reporter: Reporter) -> None:
    step = next(step for step in plan.steps if step.id == id)
    began = time.time()
    reporter.event(Event(began, Phase.STARTED, step.title, host.name, step.id))
    answer = host.run(step.script, timeout_seconds=step.timeout_seconds)
    seconds = time.time() - began
    if not answer.ok:
        reporter.event(Event(time.time(), Phase.FAILED, step.title, host.name, step.id, seconds, answer.last_words))
        error = LockHeld if answer.status == HELD_STATUS else StepFailed
        raise error(f"{host.name}: {step.title}: failed (status {answer.status}).\n{answer.last_words}")
    reporter.event(Event(time.time(), Phase.DONE, step.title, host.name, step.id, seconds))


def _summary(
    environment: str, work: Work, rows: list[tuple[str, HostSummary | HostUnreachable]], seconds: float
) -> Summary:
    hosts = tuple(
        row if isinstance(row, HostSummary) else HostSummary(name, HostResult.UNKNOWN, 0, cause=str(row))
        for name, row in rows
    )
    failed = [row for row in hosts if row.result is HostResult.UNKNOWN]
    changed = [row for row in hosts if row.result is work.result]
    message = f"{len(changed)} {work.result.value}." if changed else work.nothing
    if failed:
        names = ", ".join(row.host for row in failed)
        message = f"{names}: {work.action} did not end. Next: mend the cause; the same command goes on from there"
    return Summary(
        work.action, environment, "", ExitCode.PARTLY_DONE if failed else ExitCode.DONE, seconds, hosts, message
    )
