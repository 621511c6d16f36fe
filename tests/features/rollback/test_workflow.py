"""The undo command of a rollback, the choice of the backup for its data, and the steps that restore the data."""

from __future__ import annotations

import shlex
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from rolling_upgrade.engine import maintenance
from rolling_upgrade.engine.model import (
    Environment,
    HostState,
    Outcome,
    RolloutPolicy,
    Target,
)
from rolling_upgrade.engine.nginx import maintenance_page
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.engine.preflight import Finding
from rolling_upgrade.engine.rollout import HostRun
from rolling_upgrade.features.backup.manifest import Backup, BackupFile, BackupKind
from rolling_upgrade.features.deploy.plan import plan_deploy
from rolling_upgrade.features.restore.plan import DataRestore
from rolling_upgrade.features.rollback import workflow as rollback
from rolling_upgrade.features.rollback.workflow import RollbackTarget
from tests.features.rollback.test_selection import back, digest, host, release
from tests.support.sample import application
from tests.support.states import RUN, ids, undo, upgradable, wanted


@pytest.mark.parametrize("tag", ["v1; touch pwned", "$(touch pwned)", "`id`", "a b", "'", "v1\nid", "-x", "--force"])
def test_undo_command_quotes_a_tag_of_the_history(tag: str) -> None:
    app = application()
    environment = Environment("demo", tuple(Target(name, name, "deploy", app) for name in ("web1", "web2")))
    targets = {
        name: RollbackTarget(release("r9", "v0"), release(f"r{number}", tag), app)
        for number, name in enumerate(("web1", "web2"))
    }
    host_runs = [cast(HostRun, SimpleNamespace(name=name)) for name in targets]

    command = rollback._operation_spec(environment, targets, (), "r3").undo_command(host_runs)

    expected = [] if tag.startswith("-") else ["rolling-upgrade", "rollback", "--env", "demo", "--to", tag]
    assert shlex.split(command) == expected


APP = application()


def backups(*names: str) -> tuple[Backup, ...]:
    files = (BackupFile("database.db", 4096, "a" * 64), BackupFile("rows", 10, "b" * 64))
    return tuple(Backup(name, database="sqlite", files=files) for name in names)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (host(release("A", "v1"), release("B", "v2"), runs="v2"), "B"),
        (host(release("A", "v1"), release("B", "v2", outcome=Outcome.UNDONE), release("C", "v3"), runs="v3"), "C"),
        # A served again after the rollback: C's backup has its data, B's does not.
        (host(release("A", "v1"), release("B", "v2"), back("B5", "v1", "A", "B"), release("C", "v3"), runs="v3"), "C"),
        # A deploy of the same content does not end the release for the data.
        (host(release("A", "v1"), release("A2", "v1"), release("C", "v3"), runs="v3"), "C"),
        (host(release("A", "v1"), release("B", "v2"), release("C", "v3"), runs="v3"), "B"),
    ],
)
def test_choose_returns_the_backup_of_the_run_that_replaced_the_release(state: HostState, expected: str) -> None:
    choice = rollback.choose_backup(state, state.releases[0], backups("A", "B", "C"))

    assert isinstance(choice, Backup)
    assert choice.id == expected


def ran(id: str, tag: str, kind: BackupKind = BackupKind.DEPLOY) -> Backup:
    """A backup that was taken while the backend ran this tag."""
    return replace(backups(id)[0], kind=kind, services=(("backend", f"r.test/b:{tag}@{digest(tag)}"),))


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        # B was killed after its cutover, C repeated it: C's backup contains data that v2 wrote.
        ((ran("B", "v1"), ran("C", "v2")), "B"),
        # Killed before its cutover: v1 served on until C.
        ((ran("B", "v1"), ran("C", "v1")), "C"),
        # Killed twice.
        ((ran("A9", "v1"), ran("B", "v2"), ran("C", "v2")), "A9"),
        # A manual backup in between is older than the end of v1.
        ((ran("A9", "v1", BackupKind.MANUAL), ran("C", "v2")), ""),
        # A backup from an earlier time of v1.
        ((ran("0", "v1"), ran("C", "v2")), ""),
        # The backup of the run that replaced v1 is missing: v1 may have served after B.
        ((ran("B", "v1"),), ""),
    ],
)
def test_choose_after_a_repeated_killed_run_compares_the_running_images(
    listed: tuple[Backup, ...], expected: str
) -> None:
    state = host(release("A", "v1"), release("C", "v2"), runs="v2")

    choice = rollback.choose_backup(state, state.releases[0], listed)

    assert (choice.id if isinstance(choice, Backup) else "") == expected


def test_choose_after_an_unrepeated_killed_run_returns_its_backup() -> None:
    state = host(release("A", "v1"), runs="v2")

    choice = rollback.choose_backup(state, state.releases[0], (ran("B", "v1"),))

    assert isinstance(choice, Backup)
    assert choice.id == "B"


def test_choose_without_the_right_backup_is_refused() -> None:
    state = host(release("A", "v1"), release("B", "v2"), release("C", "v3"), runs="v3")

    choice = rollback.choose_backup(state, state.releases[0], backups("A", "C"))

    assert isinstance(choice, Finding)
    assert "the backup of B is missing" in choice.problem


DATA = DataRestore(replace(APP, uploads=""), backups("B")[0], "r2", files=False)


def test_unfit_with_moved_database_is_refused() -> None:
    state = HostState("web1", facts=(("home", "yes"),))
    earlier = replace(APP, database="/elsewhere/shop.db")

    assert "/elsewhere/shop.db" in rollback.unfit_for_data(state, DATA, earlier)[0].problem
    assert rollback.unfit_for_data(state, DATA, APP) == ()


def plan_rollback(state: HostState) -> Plan:
    steps = rollback.data_steps(state, DATA, "<html>")
    spec = replace(wanted(APP, force=True), record=replace(RUN, action="rollback", target="r0"), data=steps)
    return plan_deploy(state, spec, RolloutPolicy())


def with_page(up: str = "") -> HostState:
    """A host whose site knows the page; `up` says who put up its current page, '' for none."""
    return replace(upgradable(APP), site=f"if (-f {maintenance_page(APP)})", facts=(("maintenance", up),))


def test_plan_with_data_stops_the_writers_before_backup_and_restore() -> None:
    plan = plan_rollback(with_page())

    assert plan.prepare[0].id == "check"
    assert ids(plan)[:5] == ["maintenance.on", "stop", "backup", "database", "backend.start"]
    assert ids(plan)[-2:] == ["maintenance.off", "drain"]


def test_undo_of_cutover_with_data_flips_without_a_check() -> None:
    """An undo goes in reverse: the former color starts only after the former data is back."""
    text = undo(plan_rollback(with_page()), "backend.cutover")

    assert "podman start" not in text
    assert "live/backend.green" in text


def test_plan_with_data_replaces_every_service() -> None:
    steps = {step.id for step in plan_rollback(with_page()).steps}

    assert {"backend.start", "frontend.start"} <= steps


@pytest.mark.parametrize(
    ("up", "shown"),
    [("", True), (maintenance.BY_RUN, True), (maintenance.BY_HAND, False), (maintenance.BY_SETTING, False)],
)
def test_plan_with_data_removes_only_the_page_of_a_run(up: str, shown: bool) -> None:
    assert ("maintenance.off" in ids(plan_rollback(with_page(up)))) is shown


def test_plan_with_data_notes_the_backups_and_deletes_the_former_data_at_the_end() -> None:
    plan = plan_rollback(with_page())

    assert any("backup r2 keeps the current one" in note for note in plan.notes)
    assert ".before-" in plan.finalize[-1].script.text
