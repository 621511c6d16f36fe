"""Restore: put a backup back on each host, behind a check and a backup of what is there. The story only."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fabfile import config, render
from fabfile.commands.maintenance import BY_RUN
from fabfile.errors import ConfigError, ExitCode, Mistake
from fabfile.model import Application, Backup, Environment, HostState
from fabfile.plans.preflight import Finding
from fabfile.plans.restore import Wanted, plan_restore, unfit
from fabfile.plans.step import Plan
from fabfile.remote.rollout import Member
from fabfile.report import choose
from fabfile.workflows import rolling
from fabfile.workflows.backups import chosen, every_backup
from fabfile.workflows.fleet import opened

#: What visitors read meanwhile.
_MESSAGE = "Data is being restored. This takes a few minutes."
PARTS = ("database", "uploads")


@dataclass(frozen=True)
class Request:
    """What the operator asked for; `only` is '' for all that the backup holds."""

    environment: str | None
    root: Path
    backup: str
    only: str = ""
    hosts: tuple[str, ...] = ()
    force: bool = False
    dry_run: bool = False
    json: bool = False


def restore(request: Request) -> ExitCode:
    """Put a backup back. Raises RollingError with its exit code when nothing was begun."""
    began = time.time()
    _refuse_mistakes(request)
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    with choose(json=request.json, secrets=environment.secrets) as reporter, opened(environment) as fleet:
        run = rolling.begin(environment, reporter)
        states = fleet.observe()
        found = chosen(every_backup(fleet), request.backup, environment.name)
        signature = rolling.signature(request.root)

        def plan(state: HostState) -> Plan:
            app, backup = fleet.targets[state.host].application, found[state.host]
            database, files = _parts(app, backup, request.only)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            return plan_restore(
                state,
                Wanted(
                    environment.name,
                    app,
                    backup,
                    run.release,
                    now,
                    database=database,
                    files=files,
                    page=render.maintenance_page(app, _MESSAGE, by=BY_RUN),
                    **signature,
                ),
            )

        rolling.refuse_unfit(_unfit(states, found, environment, request.only), "a restore", states, environment)
        members = [
            Member(host, fleet.targets[host.name].application, states[host.name], plan(states[host.name]))
            for host in fleet.hosts
        ]
        story = _story(environment, request)
        roll = rolling.Roll(environment, reporter, run, story, began, force=request.force, dry_run=request.dry_run)
        return roll.over(members, plan)


def _refuse_mistakes(request: Request) -> None:
    if request.only and request.only not in PARTS:
        mistake = Mistake("command line", "--only", repr(request.only), " or ".join(PARTS))
        raise ConfigError("The command line has a mistake; nothing was contacted.", [mistake])
    if not request.backup:
        raise ConfigError(
            "Which backup? Nothing was contacted.", next_step=f"inv backups --env {request.environment or 'ENV'}"
        )


def _parts(app: Application, backup: Backup, only: str) -> tuple[bool, bool]:
    """Which parts are put back: those that were named, else all that the backup and the application both have."""
    if only:
        return only == "database", only == "uploads"
    return bool(backup.database), bool(app.uploads) and backup.uploads is not None


def _unfit(
    states: Mapping[str, HostState], found: Mapping[str, Backup], environment: Environment, only: str
) -> list[Finding]:
    apps = {target.name: target.application for target in environment.targets}
    rows: list[Finding] = []
    for name, state in states.items():
        database, files = _parts(apps[name], found[name], only)
        rows += unfit(state, apps[name], found[name], database=database, files=files)
    return rows


def _story(environment: Environment, request: Request) -> rolling.Story:
    return rolling.Story(
        action="restore",
        reason=f"restore of {request.backup}",
        question=f"Replace the {request.only or 'data'} of {environment.name} by backup {request.backup}?",
        hint=f"inv restore {request.backup} --env {environment.name} --force restores without asking",
        done="With the data of the backup",
        undone="With its former data",
        nothing="Nothing to do.",
    )
