"""Apply resources to hosts: check them, plan the missing ones, confirm, apply, check again.

Root executes the steps on the host, with the engine of every other run, but without its lock and its undo: a second
run finds nothing to do, and after an interruption the next run resumes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from rolling_upgrade import rendering
from rolling_upgrade.console.reporter import Reporter
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.host_run import RunDocument, RunEnd
from rolling_upgrade.engine.journal import GO, PREPARE
from rolling_upgrade.engine.model import Event, HostResult, HostSummary, Phase, Summary, exit_code, new_run_id
from rolling_upgrade.engine.plan import Plan, Step
from rolling_upgrade.engine.remote_run import RemoteRun
from rolling_upgrade.engine.resource import PYTHON, Resource, as_root, check, parse_check
from rolling_upgrade.engine.shell import AS_LOGIN_USER, BY_SUDO, Script
from rolling_upgrade.errors import (
    PROGRAM,
    ExitCode,
    HostUnreachable,
    LockHeld,
    PreflightError,
    RollingError,
    StepFailed,
)
from rolling_upgrade.ssh.fabric_host import FabricHost
from rolling_upgrade.ssh.fleet import Fleet

#: The id of a resource that locks the host against other runs.
LOCK = "lock"
#: Root's engine and journals, below it a directory for each application. A boot deletes it.
STATE = "/run/rolling-upgrade"
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
    context = new_context(fleet, reporter)
    rows = fleet.on_each(
        lambda host: _apply(host, plans[host.name], fleet, spec, context),
        finish=True,
        on_interrupt=context.cancelled.set,
    )
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
        root_step(resource.id, resource.title, resource.apply, setup_user)
        for resource in spec.resources[host]
        if missing.get(resource.id) and resource.apply is not None
    )
    notes = spec.notes.get(host, ()) if steps else ()
    return Plan(host, spec.action, "", steps=steps, notes=notes, result=spec.result)


def root_step(id: str, title: str, script: Script, setup_user: str) -> Step:
    """Return a step that root executes on the host, or a step that installs what the executor itself needs."""
    return Step(id, title, as_root(script, user=setup_user if id == PYTHON else "root"), APPLY_SECONDS)


def _apply(host: Host, plan: Plan, fleet: Fleet, spec: ApplySpec, context: RunContext) -> HostSummary:
    def verify() -> None:
        missing = _check(host, spec, fleet)
        if missing:
            rows = [
                f"{resource.title}. {resource.remedy}".rstrip(". ")
                for resource in spec.resources[host.name]
                if resource.id in missing
            ]
            raise StepFailed(f"{host.name}: still missing after {spec.action}:\n  " + "\n  ".join(rows))

    summary = run_plan(fleet.host(host.name), plan, fleet, context, verify)
    if summary.result is spec.result:
        context.emit(Phase.DONE, spec.result.value, host.name, "")
    return summary


def new_context(fleet: Fleet, reporter: Reporter) -> RunContext:
    """Return the context of a new run."""
    return RunContext(new_run_id(), fleet.environment.rollout.lease_seconds, reporter.event)


def run_plan(
    host: FabricHost, plan: Plan, fleet: Fleet, context: RunContext, verify: Callable[[], None]
) -> HostSummary:
    """Let root execute the plan on its host, then `verify`. An error is the cause in the host's result."""
    if plan.empty:
        return HostSummary(host.name, HostResult.UNCHANGED, 0)
    started_at, result = time.time(), HostResult.UNKNOWN
    target = fleet.targets[host.name]
    home = f"{STATE}/{target.application.name}"
    plan = replace(plan, run_id=context.run_id, home=home, environment=fleet.environment.name)
    try:
        for step in plan.steps:
            if step.id == PYTHON:
                _install_python(host, step, context)
        plan = replace(plan, steps=tuple(step for step in plan.steps if step.id != PYTHON))
        if not plan.empty:
            end = _execute(host, plan, target.setup_user, context)
            if end.raised is not None:
                result = end.result
                raise end.raised
        verify()
    except RollingError as error:
        return HostSummary(host.name, result, time.time() - started_at, cause=str(error))
    return HostSummary(host.name, plan.result, time.time() - started_at)


def _execute(host: FabricHost, plan: Plan, setup_user: str, context: RunContext) -> RunEnd:
    """Start the run on its host, follow it, and return how it ended."""

    def report(event: Event) -> None:
        # The host has its result only after the verification.
        if event.step or event.phase is not Phase.DONE:
            context.on_event(event)

    document = RunDocument(plan, "", "", context.lease_seconds)
    shell = AS_LOGIN_USER if setup_user == "root" else BY_SUDO
    remote = RemoteRun(host, document, rendering.engine(), replace(context, on_event=report), shell)
    remote.start()
    remote.send(PREPARE)
    remote.send(GO)
    return remote.end()


def _install_python(host: Host, step: Step, context: RunContext) -> None:
    """Run the step over SSH: without Python, the host cannot execute a run."""
    began = context.clock()
    context.emit(Phase.STARTED, step.title, host.name, step.id)
    answer = host.run(step.script, timeout_seconds=step.timeout_seconds)
    seconds = context.clock() - began
    if not answer.ok:
        context.emit(Phase.FAILED, step.title, host.name, step.id, seconds, answer.output_tail)
        raise StepFailed(f"{host.name}: {step.title}: failed (status {answer.status}).\n{answer.output_tail}")
    context.emit(Phase.DONE, step.title, host.name, step.id, seconds)


def host_summaries(rows: Mapping[str, HostSummary | HostUnreachable]) -> tuple[HostSummary, ...]:
    """Return the result of each host; an unreachable one has an unknown result."""
    return tuple(
        row if isinstance(row, HostSummary) else HostSummary(name, HostResult.UNKNOWN, 0, cause=str(row))
        for name, row in rows.items()
    )


def _summary(environment: str, spec: ApplySpec, hosts: tuple[HostSummary, ...], seconds: float) -> Summary:
    failed = [row.host for row in hosts if row.result in {HostResult.UNKNOWN, HostResult.NOT_STARTED}]
    changed = [row for row in hosts if row.result is spec.result]
    message = f"{len(changed)} {spec.result.value}." if changed else spec.unchanged
    if failed:
        message = (
            f"{', '.join(failed)}: {spec.action} failed. Next: fix the cause and run the same command again; it resumes"
        )
    return Summary(spec.action, environment, "", exit_code_of(hosts), seconds, hosts, message)


def exit_code_of(hosts: Iterable[HostSummary]) -> ExitCode:
    """Return the exit code of a run without a lock. A host that did not start it was busy with another one."""
    return exit_code(LockHeld("") if row.result is HostResult.NOT_STARTED else row.result for row in hosts)
