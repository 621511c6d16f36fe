"""The plan of a restore: steps, undo, and refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolling_upgrade import rendering
from rolling_upgrade.engine.model import (
    AccessoryContainer,
    AccessoryDatabase,
    Application,
    Color,
    Handoff,
    HostResult,
    HostState,
    Image,
    Job,
    Mount,
    RolloutPolicy,
)
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.features.backup.manifest import Backup, BackupFile, DatabaseBackup, Verdict
from rolling_upgrade.features.restore.plan import DataRestore, RestoreSpec, plan_restore
from tests.support.sample import LOCK, application, backend, frontend, worker
from tests.support.states import RUN, as_wanted

APP = replace(application(), uploads="/srv/shop/uploads")
FILES = tuple(BackupFile(name, 9, "a" * 64) for name in ("database.db", "rows", "uploads.sums"))
BACKUP = Backup("20261123T020000Z-abcdef", app="shop", database="sqlite", rows=7, uploads=3, files=FILES)
FIT = replace(as_wanted(APP), facts=(("home", "yes"), ("has_rsync", "yes"), ("has_pg_dump", "yes")))

#: The history line of the run that is planned.
RESTORE = replace(RUN, action="restore")


def plan(state: HostState = FIT, *, app: Application = APP, database: bool = True, files: bool = True) -> Plan:
    observed = replace(state, site=rendering.nginx_site(app))
    page = rendering.maintenance_page(app)
    spec = RestoreSpec(
        "production",
        DataRestore(app, BACKUP, RESTORE.id, database=database, files=files),
        RESTORE,
        LOCK,
        page=page,
    )
    return plan_restore(observed, spec, RolloutPolicy())


def ids(plan: Plan) -> list[str]:
    return [step.id for step in plan.steps]


def test_plan_restore_prepares_with_a_check_of_the_backup() -> None:
    assert [step.id for step in plan().prepare] == ["check"]


def test_plan_restore_has_the_steps_in_order() -> None:
    assert ids(plan()) == [
        "maintenance.on",
        "stop",
        "backup",
        "database",
        "uploads",
        "backend.start",
        "frontend.start",
        "verify",
    ]


def test_plan_restore_is_not_undone_once_visitors_can_write_to_the_restored_data() -> None:
    assert [step.id for step in plan().finalize] == ["maintenance.off", "record"]


@pytest.mark.parametrize(("database", "files", "left_out"), [(True, False, "uploads"), (False, True, "database")])
def test_plan_restore_of_one_part_omits_the_other(database: bool, files: bool, left_out: str) -> None:
    assert left_out not in ids(plan(database=database, files=files))


def test_plan_restore_undo_stops_services_with_data_before_it_restores_the_former_data() -> None:
    undone = [step.id for step in reversed(plan().steps) if step.undo is not None]

    assert undone == ["backend.start", "uploads", "database", "stop", "maintenance.on"]


def test_plan_restore_undo_of_the_data_stops_the_containers_that_a_boot_has_started() -> None:
    undone = {step.id: step.undo.text for step in plan().steps if step.undo is not None}

    for id in ("database", "uploads"):
        stopped, _, rest = undone[id].partition("podman stop")
        assert "before-" not in stopped
        assert "before-" in rest


def text(id: str) -> str:
    return next(step.script.text for step in plan().steps if step.id == id)


def test_plan_restore_of_service_without_data_ignores_its_restarts() -> None:
    """The restore does not stop it, so the gate would count the restarts of its whole lifetime."""
    assert ("RestartCount" in text("backend.start"), "RestartCount" in text("frontend.start")) == (True, False)


def test_plan_restore_with_mounts_beside_the_data_stops_no_service() -> None:
    app = replace(APP, services=(backend(mounts=(Mount("/srv/shop/config", "/app/config", True),)), frontend()))
    spec = RestoreSpec("production", DataRestore(app, BACKUP, RESTORE.id), RESTORE, LOCK)

    result = plan_restore(
        replace(as_wanted(app), facts=FIT.facts, site=rendering.nginx_site(app)), spec, RolloutPolicy()
    )

    assert [step.id for step in result.steps if step.id.endswith(".start") and step.undo] == []


def test_plan_restore_undo_of_stop_starts_the_live_colors() -> None:
    """A killed restore may have stopped them already; then the repeated run has not recorded their names."""
    dead = replace(FIT, containers=tuple(replace(container, running=False) for container in FIT.containers))

    undo = next(step.undo for step in plan(dead).steps if step.id == "stop")

    assert undo is not None
    assert all(f"podman start {container.name}" in undo.text for container in FIT.containers)
    assert "127.0.0.1:18080" in undo.text or "127.0.0.1:28080" in undo.text


def test_plan_restore_keeps_a_page_that_is_up_already() -> None:
    up = replace(FIT, facts=(*FIT.facts, ("maintenance", "hand")))

    result = plan(up)

    assert not {"maintenance.on", "maintenance.off"} & set(ids(result))
    assert any("stays on" in note for note in result.notes)


def test_plan_restore_starts_the_live_colors() -> None:
    green = replace(
        FIT,
        active=(("backend", Color.GREEN),),
        containers=(*FIT.containers, replace(FIT.containers[0], name="shop-backend-green", color=Color.GREEN)),
    )

    started = next(step for step in plan(green).steps if step.id == "backend.start")

    assert "podman start shop-backend-green" in started.script.text


def test_plan_restore_records_backup_and_services() -> None:
    result = plan()

    assert result.record is not None
    assert (result.record.action, result.record.target, result.result) == ("restore", BACKUP.id, HostResult.RESTORED)
    assert [name for name, _ in result.record.services] == ["backend", "frontend"]
    assert ".before-" in result.finalize[-1].script.text


@pytest.mark.parametrize(
    ("backup", "database", "files", "problem"),
    [
        (replace(BACKUP, problem="its manifest is damaged"), True, True, "its manifest is damaged"),
        (replace(BACKUP, verdict=Verdict.DAMAGED), True, True, "failed its last verification"),
        (replace(BACKUP, uploads=None), False, True, "holds no uploaded files"),
        (replace(BACKUP, database="postgres"), True, False, "a different database"),
        (replace(BACKUP, database=""), True, False, "no database"),
        (BACKUP, False, False, "neither"),
    ],
)
def test_unfit_backup_is_refused_with_its_reason(backup: Backup, database: bool, files: bool, problem: str) -> None:
    findings = DataRestore(APP, backup, RESTORE.id, database=database, files=files).unfit(FIT)

    assert problem in " ".join(str(finding) for finding in findings)


def test_unfit_with_intact_backup_on_prepared_host_is_empty() -> None:
    assert DataRestore(APP, BACKUP, RESTORE.id).unfit(FIT) == ()


@pytest.mark.parametrize(("fact", "problem"), [("has_rsync", "rsync missing"), ("home", "not writable")])
def test_unfit_host_is_refused(fact: str, problem: str) -> None:
    state = replace(FIT, facts=tuple((key, "no" if key == fact else value) for key, value in FIT.facts))

    assert problem in " ".join(str(finding) for finding in DataRestore(APP, BACKUP, RESTORE.id).unfit(state))


SHOP = AccessoryDatabase("db", "postgres", "shop", "shop", 5432)
INSIDE = DatabaseBackup("db", "postgres", "shop", "db.pgdump", 2, 7)
WITH_ACCESSORY = replace(APP, database="", uploads="", databases=(SHOP,))
TAKEN = Backup(BACKUP.id, app="shop", databases=(INSIDE,), files=(BackupFile("db.pgdump", 9, "a" * 64),))
DB = AccessoryContainer("db", "shop-accessory-db", True, "running", "", 0, 0, Image("postgres", "17"))
UP = replace(as_wanted(WITH_ACCESSORY), facts=FIT.facts, accessories=(DB,))


def of_accessory(backup: Backup = TAKEN, app: Application = WITH_ACCESSORY) -> DataRestore:
    return DataRestore(app, backup, RESTORE.id, files=False)


def test_unfit_restore_of_a_database_in_an_accessory() -> None:
    assert of_accessory().unfit(UP) == ()
    stopped = replace(UP, accessories=(replace(DB, running=False),))
    assert ["not running" in str(finding) for finding in of_accessory().unfit(stopped)] == [True]
    assert ["not running" in str(finding) for finding in of_accessory().unfit(replace(UP, accessories=()))] == [True]


@pytest.mark.parametrize("changes", [{"accessory": "other"}, {"name": "other"}, {"kind": "mysql"}])
def test_unfit_restore_of_a_database_that_is_not_configured(changes: dict[str, str]) -> None:
    backup = replace(TAKEN, databases=(replace(INSIDE, **changes),))  # type: ignore[arg-type]

    [finding] = of_accessory(backup).unfit(UP)

    assert "which this host does not have" in finding.problem


def test_plan_restore_of_a_database_in_an_accessory_restores_it_and_undoes_it_from_the_backup_before() -> None:
    spec = RestoreSpec("production", of_accessory(), RESTORE, LOCK)

    steps = {step.id: step for step in plan_restore(UP, spec, RolloutPolicy()).steps}

    assert f"{BACKUP.id}/db.pgdump" in steps["database"].script.text
    undo = steps["database"].undo
    assert undo is not None
    assert f"{RESTORE.id}/db.pgdump" in undo.text
    assert undo.text.index("podman stop") < undo.text.index("db.pgdump.began")


def test_plan_restore_with_a_database_in_an_accessory_stops_every_service_and_no_accessory() -> None:
    """Every service may write to the database, and the database has to run to be restored."""
    spec = RestoreSpec("production", of_accessory(), RESTORE, LOCK)

    steps = {step.id: step for step in plan_restore(UP, spec, RolloutPolicy()).steps}

    assert steps["frontend.start"].undo is not None
    assert 'index .Config.Labels "rolling.accessory"' in steps["stop"].script.text


def test_plan_restore_starts_an_exclusive_worker_alone_also_in_the_undo() -> None:
    """A killed handover may have left its candidate running."""
    data = (Mount("/srv/shop/data", "/data"),)
    app = replace(APP, services=(*APP.services, worker(mounts=data, handoff=Handoff.EXCLUSIVE)))
    steps = {step.id: step for step in plan(replace(FIT, containers=as_wanted(app).containers), app=app).steps}

    start, stop = steps["worker.start"].script.text, steps["stop"].undo
    assert stop is not None
    assert start.index("stop_for_good shop-worker-green 4") < start.index("podman start shop-worker-blue")
    assert 'shop-worker-green) ;; *) podman start "$name"' in stop.text
    assert stop.text.index("stop_for_good shop-worker-green 4") < stop.text.index("podman start shop-worker-blue")


def test_plan_restore_verifies_workers_by_their_gates_alone() -> None:
    app = application(worker(), full_chain=None)
    steps = {step.id: step for step in plan(replace(FIT, containers=as_wanted(app).containers), app=app).steps}

    assert "curl" not in steps["worker.start"].script.text + steps["verify"].script.text


def test_jobs_stop_before_the_data_is_replaced_and_their_timers_start_at_the_end() -> None:
    """A job may write to the data, whichever release it belongs to."""
    app = replace(APP, jobs=(Job("cleanup", "backend", ("./clean",), "@daily", ("*-*-* 00:00:00",)),))
    spec = RestoreSpec("production", DataRestore(app, BACKUP, RESTORE.id, database=True, files=True), RESTORE, LOCK)

    found = plan_restore(replace(FIT, site=rendering.nginx_site(APP)), spec, RolloutPolicy())

    stop = next(step for step in found.steps if step.id == "stop")
    assert stop.script.text.index("own_units timer") < stop.script.text.index("podman stop")
    assert stop.undo is not None
    assert "own_units timer" in stop.undo.text
    assert [step.id for step in found.finalize][-2:] == ["jobs", "record"]
    assert "jobs" not in [step.id for step in plan().finalize]


def test_jobs_that_are_no_longer_declared_run_again_after_a_restore() -> None:
    """The restore stops every timer of the host, and only a deploy removes one."""
    spec = RestoreSpec("production", DataRestore(APP, BACKUP, RESTORE.id, database=True, files=True), RESTORE, LOCK)
    state = replace(FIT, site=rendering.nginx_site(APP), facts=(*FIT.facts, ("jobs", "0123456789abcdef")))

    assert [step.id for step in plan_restore(state, spec, RolloutPolicy()).finalize][-2:] == ["jobs", "record"]


def test_stop_step_of_a_restore_has_the_time_that_a_worker_may_take() -> None:
    slow = worker()
    slow = replace(slow, drain=replace(slow.drain, stop_seconds=600.0))
    spec = RestoreSpec(
        "production",
        DataRestore(application(slow, full_chain=None), BACKUP, RESTORE.id, database=True, files=True),
        RESTORE,
        LOCK,
    )

    found = plan_restore(FIT, spec, RolloutPolicy())

    assert next(step for step in found.steps if step.id == "stop").timeout_seconds > 600
