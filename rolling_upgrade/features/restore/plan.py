"""Restore a backup on one host.

Check the backup → show the maintenance page → stop all writers → back up the current data → put the data back by rename
→ start the same colors → gate → verify → page off. A failure undoes in reverse and brings the former data back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rolling_upgrade.engine import locking, maintenance, podman, postgres, probe
from rolling_upgrade.engine.model import (
    Application,
    Color,
    Container,
    HostResult,
    HostState,
    Lock,
    Outcome,
    Release,
    RolloutPolicy,
    Service,
    ServiceRelease,
)
from rolling_upgrade.engine.plan import Change, Plan, ServicePlan, Step, record_failure, record_success
from rolling_upgrade.engine.preflight import Finding
from rolling_upgrade.engine.shell import Script, quote, script
from rolling_upgrade.errors import PROGRAM
from rolling_upgrade.features.backup import shell as backups
from rolling_upgrade.features.backup import verification
from rolling_upgrade.features.backup.manifest import Backup, BackupKind, Verdict
from rolling_upgrade.features.maintenance import plan as page
from rolling_upgrade.features.restore import shell as restore

#: The time limit for hashing, copying and checking data.
DATA_SECONDS = 3600.0
SWITCH_SECONDS = 120.0
#: The time limit for another backup that is running; after it, the restore is undone.
WAIT_SECONDS = 60


@dataclass(frozen=True)
class RestoreSpec:
    """What to restore on one host, the maintenance page, and the run itself."""

    environment: str
    application: Application
    backup: Backup
    run_id: str
    time: str
    owner: str
    lock: Lock
    dead_token: str = ""
    database: bool = True
    files: bool = True
    workstation: str = ""
    revision: str = ""
    page: str = ""


def unfit(state: HostState, app: Application, backup: Backup, *, database: bool, files: bool) -> tuple[Finding, ...]:
    """The problems of restoring these parts of the backup on this host."""
    found = []
    other = f"Choose another: {PROGRAM} backups shows them"
    if backup.problem:
        found.append((f"backup {backup.id}: {backup.problem}", other))
    elif backup.verdict is Verdict.DAMAGED:
        found.append((f"backup {backup.id} was found damaged when it was verified", other))
    else:
        if not database and not files:
            found.append((f"backup {backup.id} holds neither the database nor uploads of this application", other))
        if database and backup.database != ("postgres" if app.database_server else "sqlite" if app.database else ""):
            kind = backup.database or "no database"
            found.append((f"backup {backup.id} holds {kind}, and the application now uses another kind", other))
        if files and backup.uploads is None:
            found.append((f"backup {backup.id} holds no uploaded files", "Add --only database, or choose another"))
        if files and state.fact("has_rsync") == "no":
            found.append(("rsync missing", "Install it, then run the task again"))
        if database and backup.database == "postgres" and state.fact("has_pg_dump") == "no":
            found.append((f"{', '.join(postgres.TOOLS)} missing", "Install the package postgresql-client"))
    if state.fact("home") != "yes":
        found.append(
            ("the application's directory is missing or not writable", f"Run {PROGRAM} setup for this host first")
        )
    return tuple(Finding(state.host, problem, remedy) for problem, remedy in found)


class RestoreSteps:
    """The steps that restore data, in the order of the methods.

    `check` changes nothing; `stop`, `database` and `uploads` have an undo. Nothing may write to the data between `stop`
    and the start of the containers.
    """

    def __init__(self, app: Application, backup: Backup, release: str, *, database: bool, files: bool) -> None:
        self._app, self._backup, self._release = app, backup, release
        self._database, self._files = database, files

    def check(self) -> Step:
        """Compare the backup with its manifest, open it in a scratch directory, and check the disk space."""
        body = verification.check(self._app, self._backup, database=self._database, files=self._files)
        return Step("check", f"check backup {self._backup.id} and the room for it", body, DATA_SECONDS)

    def stop(self, state: HostState) -> Step:
        """Stop everything that can write to the data. The undo starts it again and waits for the live colors.

        The live colors are started in any case: after a restore that was killed, none of them may have been running.
        """
        app, serving = self._app, live(state, self._app)
        waiting = [probe.through_candidate_port(app.service(one.service), one.color) for one in serving]
        undo = script(
            restore.start_writers(app, self._release),
            *(podman.start(one.name) for one in serving),
            probe.watch(
                waiting, seconds=0, passes=1, deadline_seconds=SWITCH_SECONDS - 30, tolerance=probe.RESTART_TOLERANCE
            ),
            "watch",
        )
        body = script(restore.stop_writers(app, self._release))
        return Step("stop", "stop every container that mounts the data", body, SWITCH_SECONDS, undo, "start them again")

    def save(self) -> Step:
        """Back up the current data, which nothing can change any more, under the id of this run."""
        app = self._app if self._files else replace(self._app, uploads="")
        body = backups.take(app, self._release, BackupKind.RESTORE, wait_seconds=WAIT_SECONDS)
        return Step("backup", "back up what is there now", body, DATA_SECONDS)

    def database(self) -> Step:
        """Set the database aside and put the one of the backup in its place."""
        body = script(restore.restore_database(self._app, self._backup, self._release))
        undo = script(restore.undo_database(self._app, self._backup, self._release))
        return Step("database", "put the database back", body, DATA_SECONDS, undo, "bring the former database back")

    def uploads(self) -> Step:
        """Set the uploaded files aside and put those of the backup in their place."""
        body = script(restore.restore_uploads(self._app, self._backup, self._release))
        undo = script(restore.undo_uploads(self._app, self._release))
        return Step("uploads", "put the uploaded files back", body, DATA_SECONDS, undo, "bring the former files back")

    def data(self) -> tuple[Step, ...]:
        """The selected steps of `database` and `uploads`."""
        return (*([self.database()] if self._database else []), *([self.uploads()] if self._files else []))


def live(state: HostState, app: Application) -> tuple[Container, ...]:
    """The containers of the live colors, in the services' order, running or not."""
    found = [state.container(service.name, state.active_color(service.name)) for service in app.services]
    return tuple(container for container in found if container is not None)


def plan_restore(state: HostState, spec: RestoreSpec, rollout: RolloutPolicy) -> Plan:
    """The plan of a restore; the colors that served before serve afterwards."""
    app, backup = spec.application, spec.backup
    steps = RestoreSteps(app, backup, spec.run_id, database=spec.database, files=spec.files)
    containers = live(state, app)
    up, down = page.around(state, app, spec.page)
    record = _record(spec, containers)
    cleanup = Script("\n".join((restore.delete_former_data(app), backups.prune(app))))
    lease = rollout.lease_seconds + locking.LOCK_SECONDS
    return Plan(
        host=state.host,
        action="restore",
        run_id=spec.run_id,
        services=tuple(
            ServicePlan(one.service, Change.KEEP, one.image, one.color, one.image, one.color) for one in containers
        ),
        notes=_notes(state, spec),
        acquire=(locking.acquire_step(app, spec.lock, lease_seconds=lease, dead_token=spec.dead_token),),
        prepare=(steps.check(),),
        steps=(
            *up,
            steps.stop(state),
            steps.save(),
            *steps.data(),
            *_start(app, containers),
            _verify(app, containers),
            *down,
        ),
        finalize=(record_success(app.home, record, cleanup=cleanup),),
        abort=(record_failure(app.home, record),),
        home=app.home,
        environment=spec.environment,
        record=record,
        result=HostResult.RESTORED,
    )


def _notes(state: HostState, spec: RestoreSpec) -> tuple[str, ...]:
    backup = spec.backup
    parts = (
        [f"the database ({backup.rows} rows)" if backup.database == "sqlite" else "the database"]
        if spec.database
        else []
    )
    parts += [f"{backup.uploads} uploaded files"] if spec.files else []
    left = "" if spec.files or not spec.application.uploads else "; uploaded files stay as they are"
    return (
        f"backup {backup.id} of {backup.time}: {' and '.join(parts)} take the place of what is there{left}",
        *([_page_note(state, spec.application)] if _page_note(state, spec.application) else []),
    )


def _page_note(state: HostState, app: Application) -> str:
    if not maintenance.is_supported(app, state.site):
        return "the Nginx site is from before there was a maintenance page: visitors get errors meanwhile"
    up = state.fact("maintenance")
    return "the maintenance page is up already, and stays up" if up not in {"", maintenance.BY_RUN} else ""


def _start(app: Application, containers: tuple[Container, ...]) -> tuple[Step, ...]:
    return tuple(_start_one(app, app.service(one.service), one.color) for one in containers)


def _start_one(app: Application, service: Service, color: Color) -> Step:
    """Start a color. The undo stops it if it mounts the data, so that the former data can come back.

    A color without data was never stopped: it only has to answer, however often it was restarted.
    """
    name, gate = podman.container_name(app.name, service.name, color), service.gate
    writes = _writes(app, service)
    answers = probe.watch(
        [probe.through_candidate_port(service, color)],
        seconds=0,
        passes=gate.passes,
        deadline_seconds=gate.deadline_seconds,
        tolerance=probe.RESTART_TOLERANCE,
    )
    waits = (probe.gate(app, service, color),) if writes else (answers, "watch")
    body = script(podman.start(name), *waits)
    undo = script(podman.stop(name, service.drain.stop_seconds)) if writes else None
    seconds = service.gate.deadline_seconds + 60
    title = f"{service.name}: start {color.value} and wait for its gate"
    return Step(f"{service.name}.start", title, body, seconds, undo, f"{service.name}: stop {color.value}")


def _writes(app: Application, service: Service) -> bool:
    """Whether `restore.stop_writers` stops the service: it mounts data, or may use the database server."""
    data = [f"{path}/" for path in (app.database.rpartition("/")[0], app.uploads) if path]
    mounted = [f"{mount.source}/" for mount in service.mounts]
    shared = any(one.startswith(other) or other.startswith(one) for one in data for other in mounted)
    return shared or app.database_server is not None


def _verify(app: Application, containers: tuple[Container, ...]) -> Step:
    conditions = [probe.through_nginx(app.service(one.service), one.color) for one in containers]
    if app.full_chain:
        conditions.append(probe.answers(app, app.full_chain))
    conditions.append(probe.public(app))
    watched = probe.watch(conditions, seconds=0, passes=3, deadline_seconds=30, tolerance=20)
    said = "\n".join(
        f"echo {quote(f'last log lines of {one.name}:')}\n{podman.last_logs(one.name)}" for one in containers
    )
    body = script(watched, f"if ! watch; then\n{said or ':'}\nexit 1\nfi")
    return Step("verify", "verify the full chain", body, 90)


def _record(spec: RestoreSpec, containers: tuple[Container, ...]) -> Release:
    services = tuple(
        (one.service, ServiceRelease(one.image.reference, one.image.digest, one.color, one.spec, one.image.revision))
        for one in containers
    )
    return Release(
        spec.run_id,
        spec.time,
        "restore",
        Outcome.GOOD,
        services,
        spec.owner,
        target=spec.backup.id,
        workstation=spec.workstation,
        revision=spec.revision,
    )
