"""Rollback: bring each host back to its own last good release, image and configuration together."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rolling_upgrade import config, rendering
from rolling_upgrade.console import operator
from rolling_upgrade.console.reporter import choose
from rolling_upgrade.engine import history, preflight, stage
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.maintenance import BY_RUN
from rolling_upgrade.engine.model import Application, Environment, HostState, Phase, Release
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.engine.preflight import Finding
from rolling_upgrade.engine.rollout import HostRun
from rolling_upgrade.errors import ExitCode, PreflightError
from rolling_upgrade.features import operation
from rolling_upgrade.features.backup.manifest import Backup
from rolling_upgrade.features.backup.workflow import every_backup
from rolling_upgrade.features.deploy.plan import plan_deploy
from rolling_upgrade.features.deploy.spec import DeploySpec
from rolling_upgrade.features.rollback import data as data_back
from rolling_upgrade.features.rollback import selection
from rolling_upgrade.ssh.fleet import Fleet, opened

LOOK_SECONDS = 120.0
#: The text of the maintenance page while the database is restored.
MESSAGE = "An earlier version is being brought back. This takes a few minutes."


@dataclass(frozen=True)
class Return:
    """One host's way back: the release it goes to, the one it leaves, its application, and the backup of its data."""

    target: Release
    left: Release | None
    application: Application
    backup: Backup | None = None


def rollback(
    env: str | None,
    *,
    root: Path,
    hosts: tuple[str, ...] = (),
    to: str = "",
    restore_db: bool = False,
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> ExitCode:
    """Bring each host back to an earlier release. Raises RollingError with its exit code when nothing was begun."""
    started_at = time.time()
    environment = config.load(env, root=root, hosts=hosts)
    with choose(json=json, secrets=environment.secrets) as reporter, opened(environment) as fleet:
        context = operation.begin(environment, reporter)
        states = fleet.observe()
        returns = _returns(fleet, states, to)
        if restore_db:
            returns = _with_data(fleet, states, returns)
        for name, back in returns.items():
            context.emit(Phase.NOTE, f"goes back to {back.target.id} ({', '.join(selection.tags(back.target))})", name)

        reason = selection.reason({name: back.target.id for name, back in returns.items()})

        def plan(state: HostState) -> Plan:
            spec = _spec(returns[state.host], state, fleet, context, root, reason)
            return plan_deploy(state, spec, environment.rollout)

        host_runs = operation.host_runs(fleet.hosts, operation.applications(environment), states, plan)
        operation.refuse_unfit(_unfit(host_runs, returns), "a rollback", states, environment)
        op_spec = _operation_spec(environment, returns, hosts, context.run_id)
        run = operation.Operation(environment, reporter, context, op_spec, started_at, force=force, dry_run=dry_run)
        return run.run(host_runs, plan)


def _returns(fleet: Fleet, states: dict[str, HostState], named: str) -> dict[str, Return]:
    """Every host's way back, checked to be available. Raises PreflightError."""
    chosen = {name: selection.choose(state, named) for name, state in states.items()}
    operation.refuse([one for one in chosen.values() if isinstance(one, Finding)], "a rollback")
    targets = {name: one for name, one in chosen.items() if isinstance(one, Release)}

    def look(host: Host) -> Return | tuple[Finding, ...]:
        today = fleet.targets[host.name].application
        return _look(host, today, states[host.name], targets[host.name])

    found = fleet.on_each(look)
    lost = [error for error in found.values() if isinstance(error, PreflightError)]
    if lost:
        raise type(lost[0])("\n".join(str(error) for error in lost))
    operation.refuse([one for row in found.values() if isinstance(row, tuple) for one in row], "a rollback")
    return {name: back for name, back in found.items() if isinstance(back, Return)}


def _with_data(fleet: Fleet, states: dict[str, HostState], returns: dict[str, Return]) -> dict[str, Return]:
    """The same ways back with the backup of each host's data. Raises PreflightError."""
    listed = every_backup(fleet)
    found = {name: data_back.choose(states[name], back.target, listed[name].backups) for name, back in returns.items()}
    operation.refuse([one for one in found.values() if isinstance(one, Finding)], "a rollback")
    chosen = {name: replace(returns[name], backup=one) for name, one in found.items() if isinstance(one, Backup)}
    today = operation.applications(fleet.environment)
    unfitting = [
        finding
        for name, back in chosen.items()
        if back.backup
        for finding in data_back.unfitting(states[name], today[name], back.application, back.backup)
    ]
    operation.refuse(unfitting, "a rollback")
    return chosen


def _look(host: Host, today: Application, state: HostState, target: Release) -> Return | tuple[Finding, ...]:
    """The release with the current names, ports and certificate, which the root of the host controls."""
    answer = host.run(stage.direct(history.look(today.home, target.id)), timeout_seconds=LOOK_SECONDS)
    try:
        app = history.parse_definition(answer.output, today.home)
        app = replace(app, domain=today.domain, http_port=today.http_port, https_port=today.https_port, tls=today.tls)
        app = replace(app, metrics_dir=today.metrics_dir, request_metrics=today.request_metrics)
    except ValueError:
        problem = f"the configuration of release {target.id} is past its retention"
        return (Finding(host.name, problem, f"Deploy its tag instead: {', '.join(selection.tags(target))}"),)
    there = host.run(stage.direct(history.available(app)), timeout_seconds=LOOK_SECONDS)
    missing = selection.unavailable(host.name, target, app, there.output)
    left = selection.current(state)
    return missing or Return(target, left, app)


def _spec(back: Return, state: HostState, fleet: Fleet, context: RunContext, root: Path, reason: str) -> DeploySpec:
    site = rendering.nginx_site(back.application)
    today = fleet.targets[state.host].application
    text = rendering.maintenance_page(today, MESSAGE, by=BY_RUN)
    return DeploySpec(
        environment=fleet.environment.name,
        application=back.application,
        site=site,
        site_hash=rendering.site_hash(site),
        run_id=context.run_id,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        lock=operator.lock(context.run_id, reason, target=back.target.id),
        dead_token=operation.dead_token(state),
        action="rollback",
        target=back.target.id,
        left=back.left.id if back.left else "",
        force=back.backup is not None,
        data=data_back.steps(state, today, back.backup, context.run_id, text) if back.backup else None,
        observed=today,
        **operation.signature(root),
    )


def _unfit(host_runs: Sequence[HostRun], returns: dict[str, Return]) -> list[Finding]:
    """The problems of each host; disk space counts only if images have to be pulled."""
    return [
        finding
        for host_run in host_runs
        for finding in preflight.findings(
            host_run.state,
            returns[host_run.name].application,
            room=_pulls(host_run.plan),
            wanted_site=rendering.wanted_site(returns[host_run.name].application),
        )
    ]


def _pulls(plan: Plan) -> bool:
    return any(step.id == "pull" for step in plan.prepare)


def _operation_spec(
    environment: Environment, returns: dict[str, Return], asked: Sequence[str], release: str
) -> operation.OperationSpec:
    restored = any(back.backup for back in returns.values())

    def back(changed: Sequence[HostRun]) -> str:
        left = [returns[host_run.name].left for host_run in changed]
        named = {one.id for one in left if one} if len({one.id for one in left if one}) == 1 else _common_tag(left)
        if not changed or not named or None in left:
            return ""
        to = named.pop()
        if to.startswith("-"):
            return ""
        option = operation.hosts_option(changed, environment, asked)
        data = f" && inv restore {release} --env {environment.name} --only database{option}" if restored else ""
        return f"inv rollback --env {environment.name} --to {shlex.quote(to)}{option}{data}"

    return operation.OperationSpec(
        action="rollback",
        question=f"Roll {environment.name} back?",
        hint=f"inv rollback --env {environment.name} --force rolls back without asking",
        done="On the earlier release",
        undone="Still on the release that was to be left",
        nothing="Nothing to do: every host already runs that release.",
        back=back,
    )


def _common_tag(left: Sequence[Release | None]) -> set[str]:
    """The one tag that all these releases share, or none."""
    found = {tag for release in left if release for tag in selection.tags(release)}
    return found if len(found) == 1 else set()
