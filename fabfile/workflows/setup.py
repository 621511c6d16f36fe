"""Setup: check what each host lacks, show it, confirm, make it, check again. A second run finds nothing to do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fabfile import config, render
from fabfile.commands import setup as parts
from fabfile.errors import ExitCode, HostUnreachable, PreflightError, RollingError, StepFailed
from fabfile.model import Event, HostResult, HostSummary, Phase, Summary, Target
from fabfile.plans import setup as planning
from fabfile.plans.step import Plan
from fabfile.remote import observe
from fabfile.remote.host import Host
from fabfile.report import Reporter, choose
from fabfile.workflows import operator
from fabfile.workflows.fleet import Fleet, opened

CHECK_SECONDS = 60.0


@dataclass(frozen=True)
class Request:
    """What the operator asked for."""

    environment: str | None
    root: Path
    hosts: tuple[str, ...] = ()
    dry_run: bool = False
    force: bool = False
    json: bool = False


def setup(request: Request) -> ExitCode:
    """Prepare the hosts for deploys. Raises PreflightError when something must be made by hand first."""
    began = time.time()
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    with (
        choose(json=request.json, secrets=environment.secrets) as reporter,
        opened(environment, as_setup_user=True) as fleet,
    ):
        items = {target.name: _items(target) for target in environment.targets}
        plans = _plans(fleet, items)
        reporter.plan(plans, scripts=request.dry_run)
        if request.dry_run:
            return ExitCode.DONE
        if any(not plan.empty for plan in plans):
            hint = f"inv setup --env {environment.name} --force prepares without asking"
            force = request.force or not environment.rollout.confirm
            operator.confirm(f"Prepare the hosts of {environment.name}?", force=force, hint=hint)
        by_name = {plan.host: plan for plan in plans}
        rows = observe.on_each(
            fleet.hosts,
            environment.rollout.parallel,
            lambda host: _prepare(host, by_name[host.name], items[host.name], fleet, reporter),
        )
        summary = _summary(environment.name, list(rows.items()), time.time() - began)
        reporter.summary(summary)
        return ExitCode(summary.exit_code)


def _items(target: Target) -> tuple[parts.Item, ...]:
    app = target.application
    backup_unit, backup_timer = render.backup_units(app)
    files = parts.Files(
        site=render.nginx_site(app),
        helper=render.host_program("site"),
        boot=render.host_program("boot"),
        unit=render.boot_unit(app),
        backup_unit=backup_unit,
        backup_timer=backup_timer,
    )
    return parts.items(app, target.user, files)


def _plans(fleet: Fleet, items: dict[str, tuple[parts.Item, ...]]) -> list[Plan]:
    found = observe.on_each(
        fleet.hosts, fleet.environment.rollout.parallel, lambda host: _missing(host, items[host.name], fleet)
    )
    lost = [row for row in found.values() if isinstance(row, HostUnreachable)]
    if lost:
        raise HostUnreachable("\n".join(str(error) for error in lost))
    missing = {name: row for name, row in found.items() if isinstance(row, tuple)}
    refusals = [finding for name, ids in missing.items() for finding in planning.findings(name, items[name], ids)]
    if refusals:
        listed = "\n  ".join(str(finding) for finding in refusals)
        raise PreflightError(f"something has to be made by hand first; nothing was touched.\n  {listed}")
    return [
        planning.plan_setup(name, items[name], ids, setup_user=fleet.targets[name].setup_user)
        for name, ids in missing.items()
    ]


def _missing(host: Host, items: Sequence[parts.Item], fleet: Fleet) -> tuple[str, ...]:
    user = fleet.targets[host.name].setup_user
    answer = host.run(parts.as_root(parts.check(tuple(items)), user=user), timeout_seconds=CHECK_SECONDS)
    try:
        if not answer.ok:
            raise ValueError(answer.last_words)
        return planning.drift(answer.output)
    except ValueError as error:
        raise HostUnreachable(
            f"{host.name}: cannot look at the host as root through {user}: {error}",
            next_step="set setup_user in hosts.yaml to root or to a user with passwordless sudo",
        ) from error


def _prepare(host: Host, plan: Plan, items: Sequence[parts.Item], fleet: Fleet, reporter: Reporter) -> HostSummary:
    if plan.empty:
        return HostSummary(host.name, HostResult.UNCHANGED, 0)
    began = time.time()
    try:
        for step in plan.steps:
            _run(host, plan, step.id, reporter)
        left = _missing(host, items, fleet)
        if left:
            raise StepFailed(f"{host.name}: still not as wanted after setup: {', '.join(left)}.")
    except RollingError as error:
        return HostSummary(host.name, HostResult.UNKNOWN, time.time() - began, cause=str(error))
    reporter.event(Event(time.time(), Phase.DONE, "prepared", host.name))
    return HostSummary(host.name, HostResult.PREPARED, time.time() - began)


def _run(host: Host, plan: Plan, id: str, reporter: Reporter) -> None:
    step = next(step for step in plan.steps if step.id == id)
    began = time.time()
    reporter.event(Event(began, Phase.STARTED, step.title, host.name, step.id))
    answer = host.run(step.script, timeout_seconds=step.timeout_seconds)
    seconds = time.time() - began
    if not answer.ok:
        reporter.event(Event(time.time(), Phase.FAILED, step.title, host.name, step.id, seconds, answer.last_words))
        raise StepFailed(f"{host.name}: {step.title}: failed (status {answer.status}).\n{answer.last_words}")
    reporter.event(Event(time.time(), Phase.DONE, step.title, host.name, step.id, seconds))


def _summary(environment: str, rows: list[tuple[str, HostSummary | HostUnreachable]], seconds: float) -> Summary:
    hosts = tuple(
        row if isinstance(row, HostSummary) else HostSummary(name, HostResult.UNKNOWN, 0, cause=str(row))
        for name, row in rows
    )
    failed = [row for row in hosts if row.result is HostResult.UNKNOWN]
    changed = [row for row in hosts if row.result is HostResult.PREPARED]
    message = f"{len(changed)} prepared." if changed else "Nothing to do: every host is prepared."
    if failed:
        names = ", ".join(row.host for row in failed)
        message = f"{names} could not be prepared. Next: mend the cause; the same command goes on from there"
    return Summary("setup", environment, "", ExitCode.PARTLY_DONE if failed else ExitCode.DONE, seconds, hosts, message)
