"""Apply resources to hosts: check them, plan the missing ones, confirm, apply, check again.

A second run finds nothing to do; after an interruption the next run resumes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rolling_upgrade.console.reporter import Reporter
from rolling_upgrade.engine.exit_code import exit_code
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.lock import HELD_STATUS
from rolling_upgrade.engine.model import Event, HostResult, HostSummary, Phase, Summary
from rolling_upgrade.engine.plan import Plan, Step
from rolling_upgrade.engine.resource import Resource, as_root, check
from rolling_upgrade.errors import ExitCode, HostUnreachable, LockHeld, PreflightError, RollingError, StepFailed
from rolling_upgrade.features.setup import plan as planning
from rolling_upgrade.features.setup.teardown import LOCK
from rolling_upgrade.ssh.fleet import Fleet

CHECK_SECONDS = 120.0
#: Source: timeout(1): what it stopped, and what it had to kill.
_ENDED_BY_TIMEOUT = (124, 137)


@dataclass(frozen=True)
class Work:
    """The change to the hosts: its name, its result, the message for no change, and each host's resources and notes."""

    action: str
    result: HostResult
    nothing: str
    items: Mapping[str, tuple[Resource, ...]]
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def plans(fleet: Fleet, work: Work) -> list[Plan]:
    """Check every host and plan its missing resources. Raises PreflightError for resources that need manual work."""
    lacking = fleet.on_all(lambda host: _lacking(host, work.items[host.name], fleet))
    held = [name for name, ids in lacking.items() if ids.get(LOCK) is False]
    if held:
        raise LockHeld(
            f"another run holds the lock of {', '.join(held)}; nothing was touched",
            next_step="inv lock.status shows its holder; wait until it ends",
        )
    refusals = [finding for name, ids in lacking.items() for finding in planning.findings(name, work.items[name], ids)]
    if refusals:
        listed = "\n  ".join(str(finding) for finding in refusals)
        raise PreflightError(f"the hosts need manual work first; nothing was touched.\n  {listed}")
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


def apply(
    fleet: Fleet, work: Work, planned: Sequence[Plan], reporter: Reporter, confirm: Callable[[], None]
) -> ExitCode:
    """Confirm, carry out the plans on all hosts in parallel, and print the summary."""
    started_at = time.time()
    if any(not plan.empty for plan in planned):
        confirm()
    by_name = {plan.host: plan for plan in planned}
    rows = fleet.on_each(lambda host: _apply(host, by_name[host.name], fleet, work, reporter), finish=True)
    summary = _summary(fleet.environment.name, work, list(rows.items()), time.time() - started_at)
    reporter.summary(summary)
    return ExitCode(summary.exit_code)


def _lacking(host: Host, items: Sequence[Resource], fleet: Fleet) -> dict[str, bool]:
    user = fleet.targets[host.name].setup_user
    script = as_root(check(tuple(items)), user=user, seconds=CHECK_SECONDS - 10)
    answer = host.run(script, timeout_seconds=CHECK_SECONDS)
    if answer.status in _ENDED_BY_TIMEOUT:
        raise HostUnreachable(
            f"{host.name}: the check of the host did not end within {CHECK_SECONDS - 10:g} s and was stopped",
            next_step=f"on the host, find what blocks root or {fleet.targets[host.name].user} (ps), then run it again",
        )
    try:
        if not answer.ok:
            raise ValueError(answer.output_tail)
        return planning.lacking(answer.output)
    except ValueError as error:
        raise HostUnreachable(
            f"{host.name}: cannot check the host as root through {user}: {error}",
            next_step="set setup_user in hosts.yaml to root or to a user with passwordless sudo",
        ) from error


def _apply(host: Host, plan: Plan, fleet: Fleet, work: Work, reporter: Reporter) -> HostSummary:
    if plan.empty:
        return HostSummary(host.name, HostResult.UNCHANGED, 0)
    started_at = time.time()
    try:
        for step in plan.steps:
            _run(host, step, reporter)
        left = _lacking(host, work.items[host.name], fleet)
        if left:
            raise StepFailed(_still(host.name, work, left))
    except RollingError as error:
        return HostSummary(host.name, HostResult.UNKNOWN, time.time() - started_at, cause=str(error))
    reporter.event(Event(time.time(), Phase.DONE, work.result.value, host.name))
    return HostSummary(host.name, work.result, time.time() - started_at)


def _still(host: str, work: Work, left: Mapping[str, bool]) -> str:
    rows = [f"{item.title}. {item.remedy}".rstrip(". ") for item in work.items[host] if item.id in left]
    return f"{host}: still missing after {work.action}:\n  " + "\n  ".join(rows)


def _run(host: Host, step: Step, reporter: Reporter) -> None:
    started_at = time.time()
    reporter.event(Event(started_at, Phase.STARTED, step.title, host.name, step.id))
    answer = host.run(step.script, timeout_seconds=step.timeout_seconds)
    seconds = time.time() - started_at
    if not answer.ok:
        reporter.event(Event(time.time(), Phase.FAILED, step.title, host.name, step.id, seconds, answer.output_tail))
        error = LockHeld if answer.status == HELD_STATUS else StepFailed
        raise error(f"{host.name}: {step.title}: failed (status {answer.status}).\n{answer.output_tail}")
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
        message = f"{names}: {work.action} failed. Next: fix the cause and run the same command again; it resumes"
    code = exit_code(row.result for row in hosts)
    return Summary(work.action, environment, "", code, seconds, hosts, message)
