"""Apply resources to hosts: check them, plan the missing ones, confirm, apply, check again.

A second run finds nothing to do; after an interruption the next run resumes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rolling_upgrade.console.reporter import Reporter
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.lock_file import HELD_STATUS
from rolling_upgrade.engine.model import Event, HostResult, HostSummary, Phase, Summary, exit_code
from rolling_upgrade.engine.plan import Plan, Step
from rolling_upgrade.engine.resource import Resource, as_root, check, parse_check, with_bounded_output
from rolling_upgrade.errors import (
    PROGRAM,
    ExitCode,
    HostUnreachable,
    LockHeld,
    PreflightError,
    RollingError,
    StepFailed,
)
from rolling_upgrade.ssh.fleet import Fleet

#: The id of a resource that locks the host against other runs.
LOCK = "lock"
CHECK_SECONDS = 120.0
#: Packages may come from a slow mirror.
APPLY_SECONDS = 900
#: The exit statuses of a command that timeout(1) stopped or killed.
_TIMED_OUT = (124, 137)


@dataclass(frozen=True)
class ApplySpec:
    """A change to hosts: its name, the result for a changed host, and the resources and notes of each host.

    `unchanged` is the message of a run that changed no host.
    """

    action: str
    result: HostResult
    unchanged: str
    resources: Mapping[str, tuple[Resource, ...]]
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def apply_resources(
    fleet: Fleet,
    spec: ApplySpec,
    reporter: Reporter,
    confirm: Callable[[], None],
    *,
    check_only: bool = False,
    dry_run: bool = False,
) -> ExitCode:
    """Check every host, show the plans, confirm, and apply the missing resources on all hosts in parallel.

    With `check_only`, return FAILED when a resource is missing; with `dry_run`, also show the scripts. Both change
    nothing. Raises PreflightError for resources that need manual work.
    """
    plans = _plans(fleet, spec)
    reporter.plan(list(plans.values()), scripts=dry_run)
    complete = all(plan.empty for plan in plans.values())
    if check_only:
        return ExitCode.DONE if complete else ExitCode.FAILED
    if dry_run:
        return ExitCode.DONE
    started_at = time.time()
    if not complete:
        confirm()
    rows = fleet.on_each(lambda host: _apply(host, plans[host.name], fleet, spec, reporter), finish=True)
    summary = _summary(fleet.environment.name, spec, host_summaries(rows), time.time() - started_at)
    reporter.summary(summary)
    return ExitCode(summary.exit_code)


def _plans(fleet: Fleet, spec: ApplySpec) -> dict[str, Plan]:
    """Check every host and plan its missing resources. Raises PreflightError for resources that need manual work."""
    missing = fleet.on_all(lambda host: _check(host, spec, fleet))
    locked = [name for name, resources in missing.items() if resources.get(LOCK) is False]
    if locked:
        raise LockHeld(
            f"another run holds the lock of {', '.join(locked)}; nothing was touched",
            next_step=f"{PROGRAM} lock.status shows its holder; wait until it ends",
        )
    by_hand = [
        f"{name}: {resource.title}: missing. {resource.remedy}"
        for name, ids in missing.items()
        for resource in spec.resources[name]
        if ids.get(resource.id) is False
    ]
    if by_hand:
        listed = "\n  ".join(by_hand)
        raise PreflightError(f"the hosts need manual work first; nothing was touched.\n  {listed}")
    return {name: plan_host(fleet.targets[name].setup_user, name, spec, missing[name]) for name in missing}


def _check(host: Host, spec: ApplySpec, fleet: Fleet) -> dict[str, bool]:
    """Return the ids of the missing resources, and whether a script can create each. Raises HostUnreachable."""
    user = fleet.targets[host.name].setup_user
    script = as_root(check(spec.resources[host.name]), user=user, seconds=CHECK_SECONDS - 10)
    answer = host.run(script, timeout_seconds=CHECK_SECONDS)
    if answer.status in _TIMED_OUT:
        raise HostUnreachable(
            f"{host.name}: the check of the host did not end within {CHECK_SECONDS - 10:g} s and was stopped",
            next_step=f"use ps on the host to find what blocks root or {fleet.targets[host.name].user}, then retry",
        )
    try:
        if not answer.ok:
            raise ValueError(answer.output_tail)
        return parse_check(answer.output)
    except ValueError as error:
        raise HostUnreachable(
            f"{host.name}: cannot check the host as root through {user}: {error}",
            next_step="set setup_user in hosts.yaml to root or to a user with passwordless sudo",
        ) from error


def plan_host(setup_user: str, host: str, spec: ApplySpec, missing: Mapping[str, bool]) -> Plan:
    """Plan a step for each missing resource that a script can create."""
    steps = tuple(
        Step(resource.id, resource.title, as_root(with_bounded_output(resource.apply), user=setup_user), APPLY_SECONDS)
        for resource in spec.resources[host]
        if missing.get(resource.id) and resource.apply is not None
    )
    notes = spec.notes.get(host, ()) if steps else ()
    return Plan(host, spec.action, "", steps=steps, notes=notes, result=spec.result)


def _apply(host: Host, plan: Plan, fleet: Fleet, spec: ApplySpec, reporter: Reporter) -> HostSummary:
    def verify() -> None:
        missing = _check(host, spec, fleet)
        if missing:
            rows = [
                f"{resource.title}. {resource.remedy}".rstrip(". ")
                for resource in spec.resources[host.name]
                if resource.id in missing
            ]
            raise StepFailed(f"{host.name}: still missing after {spec.action}:\n  " + "\n  ".join(rows))

    summary = run_steps(host, plan, reporter, verify)
    if summary.result is spec.result:
        reporter.event(Event(time.time(), Phase.DONE, spec.result.value, host.name))
    return summary


def run_steps(host: Host, plan: Plan, reporter: Reporter, verify: Callable[[], None]) -> HostSummary:
    """Run the steps of the plan, then `verify`. An error makes the host's result unknown and is its cause."""
    if plan.empty:
        return HostSummary(host.name, HostResult.UNCHANGED, 0)
    started_at = time.time()
    try:
        for step in plan.steps:
            _run(host, step, reporter)
        verify()
    except RollingError as error:
        return HostSummary(host.name, HostResult.UNKNOWN, time.time() - started_at, cause=str(error))
    return HostSummary(host.name, plan.result, time.time() - started_at)


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


def host_summaries(rows: Mapping[str, HostSummary | HostUnreachable]) -> tuple[HostSummary, ...]:
    """Return the result of each host; an unreachable one has an unknown result."""
    return tuple(
        row if isinstance(row, HostSummary) else HostSummary(name, HostResult.UNKNOWN, 0, cause=str(row))
        for name, row in rows.items()
    )


def _summary(environment: str, spec: ApplySpec, hosts: tuple[HostSummary, ...], seconds: float) -> Summary:
    failed = [row.host for row in hosts if row.result is HostResult.UNKNOWN]
    changed = [row for row in hosts if row.result is spec.result]
    message = f"{len(changed)} {spec.result.value}." if changed else spec.unchanged
    if failed:
        message = (
            f"{', '.join(failed)}: {spec.action} failed. Next: fix the cause and run the same command again; it resumes"
        )
    code = exit_code(row.result for row in hosts)
    return Summary(spec.action, environment, "", code, seconds, hosts, message)
