"""Roll each host back to its own last good release, image and configuration together."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rolling_upgrade import config, rendering
from rolling_upgrade.console import identity
from rolling_upgrade.engine import history, preflight
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.maintenance import BY_RUN
from rolling_upgrade.engine.model import Application, Environment, HostState, Phase, Release
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.engine.preflight import Finding
from rolling_upgrade.engine.rollout import HostRun
from rolling_upgrade.engine.shell import direct
from rolling_upgrade.errors import PROGRAM, ExitCode, PreflightError
from rolling_upgrade.features import operation
from rolling_upgrade.features.backup.manifest import Backup, BackupKind
from rolling_upgrade.features.backup.workflow import every_backup
from rolling_upgrade.features.deploy.plan import plan_deploy
from rolling_upgrade.features.deploy.steps import DataSteps, DeploySpec
from rolling_upgrade.features.maintenance import plan as page
from rolling_upgrade.features.restore import shell as restore
from rolling_upgrade.features.restore.plan import DataRestore
from rolling_upgrade.features.rollback import selection
from rolling_upgrade.ssh.fleet import Fleet

QUERY_SECONDS = 120.0
#: The text of the maintenance page while the database is restored.
MESSAGE = "We are restoring an earlier version. This takes a few minutes."


@dataclass(frozen=True)
class RollbackTarget:
    """The release that a host goes back to, the one that it leaves, its application, and the restore of its data."""

    release: Release
    left: Release | None
    application: Application
    data: DataRestore | None = None


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
    caller: operation.Caller | None = None,
) -> ExitCode:
    """Bring each host back to an earlier release. Raises RollingError if it fails before it changes a host."""
    started_at = time.time()
    environment = _with_services(config.load(env, root=root, hosts=hosts))
    with operation.started(
        environment,
        json=json,
        started_at=started_at,
        force=force,
        dry_run=dry_run,
        action="rollback",
        caller=caller,
    ) as run:
        fleet, context = run.fleet, run.context
        states, current = fleet.observe(), operation.applications(environment)
        targets = _without_findings(
            fleet.on_all(lambda host: _read_target(host, current[host.name], states[host.name], to))
        )
        if restore_db:
            targets = _with_backups(fleet, states, current, targets, context.run_id)
        for name, target in targets.items():
            title = f"rolls back to {target.release.id} ({', '.join(selection.tags(target.release))})"
            context.emit(Phase.NOTE, title, name)

        reason = selection.lock_reason({name: target.release.id for name, target in targets.items()})
        record = operation.new_record(context, "rollback", root)

        def plan(state: HostState) -> Plan:
            # A host that is planned again may run another release by now.
            targets[state.host] = replace(targets[state.host], left=selection.current(state))
            spec = _spec(targets[state.host], state, current[state.host], environment.name, record, reason)
            return plan_deploy(state, spec, environment.rollout)

        def unfit(run: HostRun) -> Sequence[Finding]:
            return _unfit(run, targets[run.name].application)

        return run.run(_operation_spec(environment, targets, hosts, context.run_id), current, states, plan, unfit)


def _with_services(environment: Environment) -> Environment:
    """Return the environment with only the hosts that run a service. Raises PreflightError without any."""
    targets = tuple(target for target in environment.targets if target.application.services)
    if not targets:
        names = ", ".join(target.name for target in environment.targets)
        raise PreflightError(f"no service runs on {names}; nothing was touched.")
    return replace(environment, targets=targets)


def _read_target(
    host: Host, current: Application, state: HostState, named: str
) -> RollbackTarget | tuple[Finding, ...]:
    """Choose the release and read it from the host; root controls names, proxies, ports and certificate, so they stay."""
    release = selection.choose(state, named)
    if isinstance(release, Finding):
        return (release,)
    answer = host.run(direct(history.read_definition(current.home, release.id)), timeout_seconds=QUERY_SECONDS)
    try:
        app = replace(
            history.parse_definition(answer.output, current.home),
            domain=current.domain,
            site=current.site,
            http_port=current.http_port,
            https_port=current.https_port,
            tls=current.tls,
            metrics_dir=current.metrics_dir,
            request_metrics=current.request_metrics,
        )
    except ValueError:
        problem = f"the configuration of release {release.id} is past its retention"
        return (Finding(host.name, problem, f"Deploy its tag instead: {', '.join(selection.tags(release))}"),)
    available = host.run(direct(history.available(app)), timeout_seconds=QUERY_SECONDS)
    missing = selection.unavailable(host.name, release, app, available.output)
    return missing or RollbackTarget(release, selection.current(state), app)


def _with_data(
    state: HostState, current: Application, target: RollbackTarget, backups: Sequence[Backup], run_id: str
) -> RollbackTarget | tuple[Finding, ...]:
    """Add the restore of the target's database."""
    backup = choose_backup(state, target.release, backups)
    if isinstance(backup, Finding):
        return (backup,)
    data = DataRestore(replace(current, uploads=""), backup, run_id, files=False)
    return unfit_for_data(state, data, target.application) or replace(target, data=data)


def _with_backups(
    fleet: Fleet,
    states: Mapping[str, HostState],
    current: Mapping[str, Application],
    targets: Mapping[str, RollbackTarget],
    run_id: str,
) -> dict[str, RollbackTarget]:
    """Add the backup with the data of its release to the target of each host. Raises PreflightError."""
    listed = every_backup(fleet)
    return _without_findings(
        {
            name: _with_data(states[name], current[name], target, listed[name].backups, run_id)
            for name, target in targets.items()
        }
    )


def _without_findings(results: Mapping[str, RollbackTarget | tuple[Finding, ...]]) -> dict[str, RollbackTarget]:
    """Return every host's target. Raises PreflightError with the findings of all hosts."""
    findings = [finding for result in results.values() if isinstance(result, tuple) for finding in result]
    operation.refuse(findings, "a rollback")
    return {name: result for name, result in results.items() if isinstance(result, RollbackTarget)}


def _spec(
    target: RollbackTarget, state: HostState, current: Application, environment: str, record: Release, reason: str
) -> DeploySpec:
    site = rendering.nginx_site(target.application)
    text = rendering.maintenance_page(current, MESSAGE, by=BY_RUN)
    return DeploySpec(
        environment=environment,
        application=target.application,
        site=site,
        site_hash=rendering.site_hash(site),
        record=replace(record, target=target.release.id, left=target.left.id if target.left else ""),
        lock=identity.lock(record.id, reason, target=target.release.id),
        replaceable_token=operation.replaceable_token(state),
        force=target.data is not None,
        data=data_steps(state, target.data, text) if target.data else None,
        observed=current,
    )


def _unfit(host_run: HostRun, app: Application) -> Sequence[Finding]:
    """Return the problems of a host; disk space counts only if the host has to pull images."""
    room = any(step.id == "pull" for step in host_run.plan.prepare)
    site_hash = rendering.site_hash(rendering.nginx_site(app))
    return preflight.findings(
        host_run.state, app, room=room, site_hash=site_hash, program_sum=rendering.site_program_sum
    )


def _operation_spec(
    environment: Environment, targets: dict[str, RollbackTarget], hosts: Sequence[str], run_id: str
) -> operation.OperationSpec:
    def undo_command(changed: Sequence[HostRun]) -> str:
        to = _common_name([targets[host_run.name].left for host_run in changed])
        if not to or to.startswith("-"):
            return ""
        option = operation.hosts_option(changed, environment, hosts)
        restored = any(target.data for target in targets.values())
        restore = f" && {PROGRAM} restore {run_id} --env {environment.name} --only database{option}" if restored else ""
        return f"{PROGRAM} rollback --env {environment.name} --to {shlex.quote(to)}{option}{restore}"

    return operation.OperationSpec(
        action="rollback",
        question=f"Roll {environment.name} back?",
        hint=f"{PROGRAM} rollback --env {environment.name} --force rolls back without asking",
        done="Rolled back",
        undone="Rollback undone; still on the previous release",
        nothing="Nothing to do: every host already runs that release.",
        undo_command=undo_command,
    )


def _common_name(releases: Sequence[Release | None]) -> str:
    """Return the id or the image tag that all these releases share; '' if there is none or one is unknown."""
    if None in releases:
        return ""
    known = [release for release in releases if release]
    ids = {release.id for release in known}
    names = ids if len(ids) == 1 else {tag for release in known for tag in selection.tags(release)}
    return names.pop() if len(names) == 1 else ""


def choose_backup(state: HostState, target: Release, backups: Sequence[Backup]) -> Backup | Finding:
    """Return the backup that the next run took when it replaced the target release.

    A run that was killed after a cutover may have replaced the target; the next run repeated it. A killed run has no
    line in the history, so then the right backup is the newest one that was taken while the target ran.
    """
    good = [release for release in state.releases if release.good]
    served = [number for number, release in enumerate(good) if release.content == target.content]
    replaced_by = good[served[-1] + 1].id if served and served[-1] + 1 < len(good) else ""
    if served and (not replaced_by or any(backup.id == replaced_by for backup in backups)):
        started = good[served[-1]].id
        matching = [
            backup
            for backup in backups
            if backup.id > started
            and (backup.kind is BackupKind.DEPLOY or backup.id == replaced_by)
            and (not replaced_by or backup.id <= replaced_by)
            and _ran(target, backup)
        ]
        if matching:
            return matching[-1]
    missing = f"the backup of {replaced_by}" if replaced_by else "a matching one"
    return Finding(
        state.host,
        f"no backup has the data of release {target.id}: {missing} is missing, or was taken later",
        f"Roll back without --restore-db, then choose a backup: {PROGRAM} backups, {PROGRAM} restore",
    )


def _ran(target: Release, backup: Backup) -> bool:
    """Whether the target's images ran when the backup was taken; a service without a container does not count."""
    digests = {name: image.rpartition("@")[2] for name, image in backup.services}
    return all(digests.get(name, run.digest) == run.digest for name, run in target.services)


def unfit_for_data(state: HostState, data: DataRestore, earlier: Application) -> tuple[Finding, ...]:
    """Return the problems of restoring the data; `earlier` is the application of the target release."""
    if earlier.database != data.app.database:
        before, now = earlier.database or "(none)", data.app.database or "(none)"
        problem = f"the release used the database {before}, the application now uses {now}"
        return (Finding(state.host, problem, "Roll back without --restore-db and move the data by hand"),)
    return data.unfit(state)


def data_steps(state: HostState, data: DataRestore, text: str) -> DataSteps:
    """Return the steps that roll the database back, around the steps of the release.

    Check the backup → page up → stop all writers → back up the current data → restore → the steps of the release →
    page down. Once the writers have stopped, visitors get only the page, so an undo flips to the former colors without
    a check. `text` is the text of the page.
    """
    backup = data.backup
    up, down = page.around(state, data.app, text)
    return DataSteps(
        prepare=(data.check(),),
        before=(*up, data.stop(state), data.save(), data.replace_database()),
        after=down,
        cleanup=restore.delete_former_data(data.app),
        note=f"the database goes back to backup {backup.id} of {backup.time}; backup {data.run_id} keeps the current one",
    )
