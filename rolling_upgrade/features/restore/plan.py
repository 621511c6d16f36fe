"""Plan the restore of a backup on one host.

Check the backup → show the maintenance page → stop all writers → back up the current data → rename the backup's data
into place → start the same colors → gate → verify → page off. A failure undoes in reverse and brings the former data
back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rolling_upgrade.engine import health_gate, jobs, locking, maintenance, podman, postgres
from rolling_upgrade.engine.model import (
    Application,
    Color,
    Container,
    HostResult,
    HostState,
    Lock,
    Release,
    RolloutPolicy,
    Service,
    ServiceRelease,
)
from rolling_upgrade.engine.plan import Change, Plan, ServicePlan, Step, record_failure, record_success
from rolling_upgrade.engine.preflight import Finding
from rolling_upgrade.engine.shell import Script, script
from rolling_upgrade.errors import PROGRAM
from rolling_upgrade.features.backup import shell as backups
from rolling_upgrade.features.backup.manifest import Backup, BackupKind, Verdict
from rolling_upgrade.features.maintenance import plan as page
from rolling_upgrade.features.restore import shell as restore

#: The time limit for hashing, copying and checking data.
DATA_SECONDS = 3600.0
SWITCH_SECONDS = 120.0
#: The time to wait for another backup; after it, the restore fails and is undone.
WAIT_SECONDS = 60


@dataclass(frozen=True)
class DataRestore:
    """The restore of the database, of the uploaded files, or of both from a backup on one host.

    The steps are in the order of the methods. `check` changes nothing; `stop`, `replace_database` and `replace_uploads`
    have an undo. From `stop` until the containers start, no process may write to the data.
    """

    app: Application
    backup: Backup
    run_id: str
    database: bool = True
    files: bool = True

    def unfit(self, state: HostState) -> tuple[Finding, ...]:
        """Return the problems of restoring these parts on this host."""
        problems, app, backup = [], self.app, self.backup
        other = f"Choose another: {PROGRAM} backups shows them"
        if backup.problem:
            problems.append((f"backup {backup.id}: {backup.problem}", other))
        elif backup.verdict is Verdict.DAMAGED:
            problems.append((f"backup {backup.id} failed its last verification", other))
        else:
            if not self.database and not self.files:
                problems.append(
                    (f"backup {backup.id} holds neither the database nor uploads of this application", other)
                )
            own = "postgres" if app.database_server else "sqlite" if app.database else ""
            if self.database and backup.database != own and (backup.database or not backup.databases):
                kind = backup.database or "no database"
                problems.append(
                    (f"backup {backup.id} has {kind}, but the application uses a different database", other)
                )
            known = [found for _, found in restore.databases_in(app, backup)]
            if self.database:
                problems += [
                    (
                        f"backup {backup.id} has the database {found.name} of the accessory {found.accessory}, which this "
                        "host does not have",
                        "Declare the accessory, and name the database in a URL of a service",
                    )
                    for found in backup.databases
                    if found not in known
                ]
                problems += [
                    (f"the accessory {found.accessory} is not running", f"Start it: {PROGRAM} accessory.up")
                    for found in known
                    if (container := state.accessory(found.accessory)) is None or not container.running
                ]
            if self.files and backup.uploads is None:
                problems.append(
                    (f"backup {backup.id} holds no uploaded files", "Add --only database, or choose another")
                )
            if self.files and state.fact("has_rsync") == "no":
                problems.append(("rsync missing", "Install it, then run the task again"))
            if self.database and backup.database == "postgres" and state.fact("has_pg_dump") == "no":
                problems.append((f"{', '.join(postgres.TOOLS)} missing", "Install the package postgresql-client"))
        if state.fact("home") != "yes":
            problems.append(
                ("the application's directory is missing or not writable", f"Run {PROGRAM} setup for this host first")
            )
        return tuple(Finding(state.host, problem, remedy) for problem, remedy in problems)

    def check(self) -> Step:
        """Compare the backup with its manifest, test it in a scratch directory, and check the disk space."""
        body = backups.check(self.app, self.backup, database=self.database, files=self.files)
        return Step("check", f"check backup {self.backup.id} and the disk space for it", body, DATA_SECONDS)

    def stop(self, state: HostState) -> Step:
        """Stop everything that can write to the data. The undo starts it again and waits for the live colors.

        It also starts live colors that were stopped already: an earlier, killed restore may have stopped them.
        """
        app, serving = self.app, live(state, self.app)
        waiting = [(app.service(container.service), container.color) for container in serving]
        undo = script(
            restore.start_writers(app, self.run_id, except_for=_idle_exclusive(state, app)),
            *(podman.start_alone(app, app.service(container.service), container.color) for container in serving),
            health_gate.wait_for_restart(app, waiting, deadline_seconds=SWITCH_SECONDS - 30),
        )
        body = script(restore.stop_writers(app, self.run_id))
        # They stop one after the other, and a worker may take long to finish its work.
        stopped = (*app.services, *(app.service(job.service) for job in app.jobs))
        seconds = SWITCH_SECONDS + sum(service.drain.stop_seconds for service in stopped)
        return Step("stop", "stop every container that mounts the data", body, seconds, undo, "start them again")

    def save(self) -> Step:
        """Back up the current data, which no process can change any more, under the id of this run."""
        app = self.app if self.files else replace(self.app, uploads="")
        body = backups.take(app, self.run_id, BackupKind.RESTORE, wait_seconds=WAIT_SECONDS)
        return Step("backup", "back up the current data", body, DATA_SECONDS)

    def replace_database(self) -> Step:
        """Move the database aside and restore the backup's. The undo stops the writers, which a boot may have started."""
        body = script(restore.restore_database(self.app, self.backup, self.run_id))
        stop = restore.stop_writers(self.app, self.run_id)
        undo = script(stop, restore.undo_database(self.app, self.backup, self.run_id))
        return Step("database", "restore the database", body, DATA_SECONDS, undo, "restore the previous database")

    def replace_uploads(self) -> Step:
        """Move the uploaded files aside and restore the backup's. The undo stops the writers, as for the database."""
        body = script(restore.restore_uploads(self.app, self.backup, self.run_id))
        undo = script(restore.stop_writers(self.app, self.run_id), restore.undo_uploads(self.app, self.run_id))
        return Step("uploads", "restore the uploaded files", body, DATA_SECONDS, undo, "restore the previous files")

    def replace_data(self) -> tuple[Step, ...]:
        """Return the steps that replace the selected parts."""
        return (
            *([self.replace_database()] if self.database else []),
            *([self.replace_uploads()] if self.files else []),
        )


@dataclass(frozen=True)
class RestoreSpec:
    """The restore of one host: the data, the maintenance page, and the run's history line without services."""

    environment: str
    data: DataRestore
    record: Release
    lock: Lock
    replaceable_token: str = ""
    page: str = ""


def live(state: HostState, app: Application) -> tuple[Container, ...]:
    """Return the containers of the live colors in the services' order, running or not."""
    containers = [state.container(service.name, state.active_color(service.name)) for service in app.services]
    return tuple(container for container in containers if container is not None)


def _idle_exclusive(state: HostState, app: Application) -> tuple[str, ...]:
    """Return the containers that must not run, because the active color of their exclusive service does."""
    return tuple(
        podman.container_name(app.name, service.name, state.active_color(service.name).other)
        for service in app.services
        if service.is_exclusive
    )


def plan_restore(state: HostState, spec: RestoreSpec, rollout: RolloutPolicy) -> Plan:
    """Plan a restore; the colors that serve before it serve after it.

    They start one after the other: a service may exit if it cannot resolve the name of a service before it.
    """
    app, data = spec.data.app, spec.data
    containers = live(state, app)
    up, down = page.around(state, app, spec.page)
    services = tuple(
        (
            live.service,
            ServiceRelease(live.image.reference, live.image.digest, live.color, live.spec, live.image.revision),
        )
        for live in containers
    )
    record = replace(spec.record, target=data.backup.id, services=services)
    cleanup = Script("\n".join((restore.delete_former_data(app), backups.prune(app))))
    lease = rollout.lease_seconds + locking.LOCK_SECONDS
    return Plan(
        host=state.host,
        action=record.action,
        run_id=record.id,
        services=tuple(
            ServicePlan(live.service, Change.KEEP, live.image, live.color, live.image, live.color)
            for live in containers
        ),
        notes=_notes(state, data),
        acquire=(locking.acquire_step(app, spec.lock, lease_seconds=lease, replaceable_token=spec.replaceable_token),),
        prepare=(data.check(),),
        steps=(
            *up,
            data.stop(state),
            data.save(),
            *data.replace_data(),
            *(_start_color(app, app.service(container.service), container.color) for container in containers),
            _verify(app, containers),
        ),
        # Not undone: visitors write to the restored data as soon as the page is off.
        finalize=(
            *down,
            *_resume_jobs(state, app),
            record_success(app.home, record, cleanup=cleanup),
        ),
        abort=(record_failure(app.home, record),),
        home=app.home,
        environment=spec.environment,
        record=record,
        result=HostResult.RESTORED,
    )


def _resume_jobs(state: HostState, app: Application) -> tuple[Step, ...]:
    """Start the timers of the host's jobs again, also of those that are no longer declared: `stop` has stopped them all."""
    if not app.jobs and not state.fact("jobs"):
        return ()
    return (Step("jobs", "start the timers of the jobs", script(jobs.resume(app)), 60),)


def _notes(state: HostState, data: DataRestore) -> tuple[str, ...]:
    backup = data.backup
    rows = f" ({backup.rows} rows)" if backup.database == "sqlite" else ""
    parts = [f"the database{rows}"] if data.database and backup.database else []
    parts += [f"{one.name} of {one.accessory} ({one.rows} rows)" for one in backup.databases if data.database]
    parts += [f"{backup.uploads} uploaded files"] if data.files else []
    kept = "" if data.files or not data.app.uploads else "; uploaded files stay as they are"
    page_note = _page_note(state, data.app)
    return (
        f"backup {backup.id} of {backup.time}: {_listed(parts)} replace the current data{kept}",
        *([page_note] if page_note else []),
    )


def _listed(parts: Sequence[str]) -> str:
    """Join parts of a sentence: `a, b and c`."""
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)


def _page_note(state: HostState, app: Application) -> str:
    if not maintenance.is_supported(app, state.site):
        return "the installed Nginx site has no maintenance page: visitors get errors during the restore"
    up = state.fact("maintenance")
    return "the maintenance page is already on, and stays on" if up not in {"", maintenance.BY_RUN} else ""


def _start_color(app: Application, service: Service, color: Color) -> Step:
    """Start a color. The undo stops it if it mounts the data, so that the former data can come back.

    The restore does not stop a color without data, so that color only has to answer; its restarts do not count.
    """
    name, gate = podman.container_name(app.name, service.name, color), service.gate
    writes = _writes(app, service)
    if writes:
        wait = health_gate.gate(app, service, color)
    else:
        wait = health_gate.wait_for_restart(
            app, [(service, color)], passes=gate.passes, deadline_seconds=gate.deadline_seconds
        )
    body = script(podman.start_alone(app, service, color), wait)
    undo = script(podman.stop(name, seconds=service.drain.stop_seconds)) if writes else None
    seconds = gate.deadline_seconds + service.drain.stop_seconds + 60
    title = f"{service.name}: start {color.value} and wait for its gate"
    return Step(f"{service.name}.start", title, body, seconds, undo, f"{service.name}: stop {color.value}")


def _writes(app: Application, service: Service) -> bool:
    """Whether `restore.stop_writers` stops the service, because it mounts data or may use the database server."""
    data = [f"{path}/" for path in (app.database.rpartition("/")[0], app.uploads) if path]
    mounted = [f"{mount.source}/" for mount in service.mounts]
    mounts_data = any(path.startswith(source) or source.startswith(path) for path in data for source in mounted)
    return mounts_data or app.database_server is not None or bool(app.databases)


def _verify(app: Application, containers: tuple[Container, ...]) -> Step:
    conditions = [
        health_gate.through_nginx(app, app.service(container.service), container.color)
        for container in containers
        if not app.service(container.service).is_worker
    ]
    if app.full_chain:
        conditions.append(health_gate.answers(app, app.full_chain))
    if app.has_site:
        conditions.append(health_gate.public(app))
    watched = health_gate.watch(conditions, seconds=0, passes=3, deadline_seconds=30, tolerance=20)
    logs = podman.print_last_logs(container.name for container in containers)
    body = script(watched, f"if ! watch; then\n{logs}\nexit 1\nfi")
    return Step("verify", "verify the full chain", body, 90)
