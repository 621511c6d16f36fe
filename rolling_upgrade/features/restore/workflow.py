"""Restore a backup on each host, after a check and a backup of the current data."""

from __future__ import annotations

import time
from pathlib import Path

from rolling_upgrade import config, rendering
from rolling_upgrade.console import identity
from rolling_upgrade.engine.maintenance import BY_RUN
from rolling_upgrade.engine.model import Application, Environment, HostState
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.errors import PROGRAM, ConfigError, ExitCode, usage_error
from rolling_upgrade.features import operation
from rolling_upgrade.features.backup.manifest import Backup
from rolling_upgrade.features.backup.workflow import chosen, every_backup
from rolling_upgrade.features.restore.plan import DataRestore, RestoreSpec, plan_restore

#: The text of the maintenance page during a restore.
_MESSAGE = "Data is being restored. This takes a few minutes."
PARTS = ("database", "uploads")


def restore(
    backup: str,
    env: str | None,
    *,
    root: Path,
    hosts: tuple[str, ...] = (),
    only: str = "",
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> ExitCode:
    """Restore a backup on each host. Raises RollingError if it fails before it changes a host."""
    started_at = time.time()
    _check_options(backup, only, env)
    environment = config.load(env, root=root, hosts=hosts)
    with operation.started(environment, json=json, started_at=started_at, force=force, dry_run=dry_run) as run:
        fleet, context = run.fleet, run.context
        states = fleet.observe()
        backups = chosen(every_backup(fleet), backup, environment.name)
        apps = operation.applications(environment)
        restores = {name: _restore(apps[name], found, context.run_id, only) for name, found in backups.items()}
        record = operation.new_record(context, "restore", root)
        lock = identity.lock(context.run_id, f"restore of {backup}")

        def plan(state: HostState) -> Plan:
            page = rendering.maintenance_page(apps[state.host], _MESSAGE, by=BY_RUN)
            spec = RestoreSpec(
                environment.name,
                restores[state.host],
                record,
                lock,
                replaceable_token=operation.replaceable_token(state),
                page=page,
            )
            return plan_restore(state, spec, environment.rollout)

        op_spec = _operation_spec(environment, backup, only)
        return run.run(op_spec, apps, states, plan, lambda host_run: restores[host_run.name].unfit(host_run.state))


def _check_options(backup: str, only: str, env: str | None) -> None:
    if only and only not in PARTS:
        raise usage_error(("--only", repr(only), " or ".join(PARTS)))
    if not backup:
        raise ConfigError(
            "the backup is missing; nothing was contacted.", next_step=f"{PROGRAM} backups --env {env or 'ENV'}"
        )


def _restore(app: Application, backup: Backup, run_id: str, only: str) -> DataRestore:
    """Restore the named part, else every part that the backup and the application have."""
    database, files = backup.has_database, bool(app.uploads) and backup.uploads is not None
    if only:
        database, files = only == "database", only == "uploads"
    return DataRestore(app, backup, run_id, database=database, files=files)


def _operation_spec(environment: Environment, backup: str, only: str) -> operation.OperationSpec:
    return operation.OperationSpec(
        action="restore",
        question=f"Replace the {only or 'data'} of {environment.name} by backup {backup}?",
        hint=f"{PROGRAM} restore {backup} --env {environment.name} --force restores without asking",
        done="Restored",
        undone="Restore undone; the previous data is in place",
        nothing="Nothing to do.",
    )
