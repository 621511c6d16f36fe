"""The plan of a restore: its order, what undoes it, and what is refused before anything is touched."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolling_upgrade import rendering
from rolling_upgrade.engine.model import Color, HostResult, HostState, Mount, RolloutPolicy
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.features.backup.manifest import Backup, BackupFile, Verdict
from rolling_upgrade.features.restore.plan import RestoreSpec, plan_restore, unfit
from tests.support.sample import LOCK, application, backend, frontend
from tests.support.states import as_wanted

APP = replace(application(), uploads="/srv/shop/uploads")
FILES = tuple(BackupFile(name, 9, "a" * 64) for name in ("database.db", "rows", "uploads.sums"))
BACKUP = Backup("20261123T020000Z-abcdef", app="shop", database="sqlite", rows=7, uploads=3, files=FILES)
FIT = replace(as_wanted(APP), facts=(("home", "yes"), ("has_rsync", "yes"), ("has_pg_dump", "yes")))


def plan(state: HostState = FIT, *, database: bool = True, files: bool = True) -> Plan:
    seen = replace(state, site=rendering.nginx_site(APP))
    page = rendering.maintenance_page(APP)
    wanted = RestoreSpec(
        "production",
        APP,
        BACKUP,
        "r2",
        "2026-11-24T00:00:00+00:00",
        "ann",
        LOCK,
        database=database,
        files=files,
        page=page,
    )
    return plan_restore(seen, wanted, RolloutPolicy())


def ids(plan: Plan) -> list[str]:
    return [step.id for step in plan.steps]


def test_plan_restore_checks_the_backup_before_it_touches_anything() -> None:
    assert [step.id for step in plan().prepare] == ["check"]


def test_plan_restore_saves_and_changes_data_between_the_stop_and_the_start_and_the_page_frames_it() -> None:
    assert ids(plan()) == [
        "maintenance.on",
        "stop",
        "backup",
        "database",
        "uploads",
        "backend.start",
        "frontend.start",
        "verify",
        "maintenance.off",
    ]


@pytest.mark.parametrize(("database", "files", "left_out"), [(True, False, "uploads"), (False, True, "database")])
def test_plan_restore_of_one_part_leaves_the_other_alone(database: bool, files: bool, left_out: str) -> None:
    assert left_out not in ids(plan(database=database, files=files))


def test_plan_restore_undo_stops_what_has_the_data_before_the_former_data_comes_back() -> None:
    undone = [step.id for step in reversed(plan().steps) if step.undo is not None]

    assert undone == ["backend.start", "uploads", "database", "stop", "maintenance.on"]


def text(id: str) -> str:
    return next(step.script.text for step in plan().steps if step.id == id)


def test_plan_restore_service_without_data_has_to_answer_however_often_it_was_restarted() -> None:
    """It is not stopped, so that its restarts are those of its whole life: the gate would count them."""
    assert ("RestartCount" in text("backend.start"), "RestartCount" in text("frontend.start")) == (True, False)


def test_plan_restore_mounts_beside_the_data_are_no_data() -> None:
    app = replace(APP, services=(backend(mounts=(Mount("/srv/shop/config", "/app/config", True),)), frontend()))
    wanted = RestoreSpec("production", app, BACKUP, "r2", "2026-11-24T00:00:00+00:00", "ann", LOCK, page="")

    found = plan_restore(
        replace(as_wanted(app), facts=FIT.facts, site=rendering.nginx_site(app)), wanted, RolloutPolicy()
    )

    assert [step.id for step in found.steps if step.id.endswith(".start") and step.undo] == []


def test_plan_restore_undo_of_the_stop_starts_what_serves_though_nothing_ran() -> None:
    """After a restore that was killed, nothing that the same command stops is noted."""
    dead = replace(FIT, containers=tuple(replace(one, running=False) for one in FIT.containers))

    undo = next(step.undo for step in plan(dead).steps if step.id == "stop")

    assert undo is not None
    assert all(f"podman start {one.name}" in undo.text for one in FIT.containers)
    assert "127.0.0.1:18080" in undo.text or "127.0.0.1:28080" in undo.text


def test_plan_restore_page_that_is_up_already_stays_up() -> None:
    up = replace(FIT, facts=(*FIT.facts, ("maintenance", "hand")))

    found = plan(up)

    assert not {"maintenance.on", "maintenance.off"} & set(ids(found))
    assert any("stays up" in note for note in found.notes)


def test_plan_restore_keeps_the_colors_that_serve() -> None:
    green = replace(
        FIT,
        active=(("backend", Color.GREEN),),
        containers=(*FIT.containers, replace(FIT.containers[0], name="shop-backend-green", color=Color.GREEN)),
    )

    started = next(step for step in plan(green).steps if step.id == "backend.start")

    assert "podman start shop-backend-green" in started.script.text


def test_plan_restore_record_names_the_backup_and_what_runs() -> None:
    found = plan()

    assert found.record is not None
    assert (found.record.action, found.record.target, found.result) == ("restore", BACKUP.id, HostResult.RESTORED)
    assert [name for name, _ in found.record.services] == ["backend", "frontend"]
    assert ".before-" in found.finalize[-1].script.text


@pytest.mark.parametrize(
    ("backup", "database", "files", "said"),
    [
        (replace(BACKUP, problem="its manifest is damaged"), True, True, "its manifest is damaged"),
        (replace(BACKUP, verdict=Verdict.DAMAGED), True, True, "found damaged"),
        (replace(BACKUP, uploads=None), False, True, "holds no uploaded files"),
        (replace(BACKUP, database="postgres"), True, False, "another kind"),
        (replace(BACKUP, database=""), True, False, "no database"),
        (BACKUP, False, False, "neither"),
    ],
)
def test_unfit_backup_is_refused_with_its_reason(backup: Backup, database: bool, files: bool, said: str) -> None:
    found = unfit(FIT, APP, backup, database=database, files=files)

    assert said in " ".join(str(one) for one in found)


def test_unfit_whole_backup_on_a_prepared_host_is_fit() -> None:
    assert unfit(FIT, APP, BACKUP, database=True, files=True) == ()


@pytest.mark.parametrize(("fact", "said"), [("has_rsync", "rsync missing"), ("home", "not writable")])
def test_unfit_host_is_refused(fact: str, said: str) -> None:
    state = replace(FIT, facts=tuple((key, "no" if key == fact else value) for key, value in FIT.facts))

    assert said in " ".join(str(one) for one in unfit(state, APP, BACKUP, database=True, files=True))
