"""The way back of the data: which backup holds it, and what stands around the release's own steps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolling_upgrade.engine import maintenance
from rolling_upgrade.engine.model import HostState, Outcome, RolloutPolicy
from rolling_upgrade.engine.nginx import maintenance_page
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.engine.preflight import Finding
from rolling_upgrade.features.backup.manifest import Backup, BackupFile, BackupKind
from rolling_upgrade.features.deploy.plan import plan_deploy
from rolling_upgrade.features.rollback import data as data_back
from tests.features.rollback.test_selection import back, digest, host, release
from tests.support.sample import application
from tests.support.states import ids, undo, upgradable, wanted

APP = application()


def backups(*names: str) -> tuple[Backup, ...]:
    files = (BackupFile("database.db", 4096, "a" * 64), BackupFile("rows", 10, "b" * 64))
    return tuple(Backup(name, database="sqlite", files=files) for name in names)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (host(release("A", "v1"), release("B", "v2"), runs="v2"), "B"),
        (host(release("A", "v1"), release("B", "v2", outcome=Outcome.UNDONE), release("C", "v3"), runs="v3"), "C"),
        # A served again after the rollback: its data is what C's backup holds, not B's.
        (host(release("A", "v1"), release("B", "v2"), back("B5", "v1", "A", "B"), release("C", "v3"), runs="v3"), "C"),
        # The same content deployed again is the same release to the data.
        (host(release("A", "v1"), release("A2", "v1"), release("C", "v3"), runs="v3"), "C"),
        (host(release("A", "v1"), release("B", "v2"), release("C", "v3"), runs="v3"), "B"),
    ],
)
def test_choose_takes_the_backup_of_the_run_that_ended_the_release(state: HostState, expected: str) -> None:
    found = data_back.choose(state, state.releases[0], backups("A", "B", "C"))

    assert isinstance(found, Backup)
    assert found.id == expected


def ran(id: str, tag: str, kind: BackupKind = BackupKind.DEPLOY) -> Backup:
    """A backup that was taken while the backend was of this tag."""
    return replace(backups(id)[0], kind=kind, services=(("backend", f"r.test/b:{tag}@{digest(tag)}"),))


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        # B was killed after its cutover, C repeated it: C's backup has what v2 had written already.
        ((ran("B", "v1"), ran("C", "v2")), "B"),
        # Killed before its cutover: v1 served on until C.
        ((ran("B", "v1"), ran("C", "v1")), "C"),
        # Killed twice.
        ((ran("A9", "v1"), ran("B", "v2"), ran("C", "v2")), "A9"),
        # One by hand in between is older than the end of v1, and never meant.
        ((ran("A9", "v1", BackupKind.MANUAL), ran("C", "v2")), ""),
        # One of v1's time before last.
        ((ran("0", "v1"), ran("C", "v2")), ""),
        # What ended it is missing: v1 may have served after B.
        ((ran("B", "v1"),), ""),
    ],
)
def test_choose_goes_by_what_ran_where_a_killed_run_was_repeated(listed: tuple[Backup, ...], expected: str) -> None:
    state = host(release("A", "v1"), release("C", "v2"), runs="v2")

    found = data_back.choose(state, state.releases[0], listed)

    assert (found.id if isinstance(found, Backup) else "") == expected


def test_choose_killed_run_that_was_not_repeated_has_the_data() -> None:
    state = host(release("A", "v1"), runs="v2")

    found = data_back.choose(state, state.releases[0], (ran("B", "v1"),))

    assert isinstance(found, Backup)
    assert found.id == "B"


def test_choose_without_that_backup_is_refused_and_takes_no_other() -> None:
    state = host(release("A", "v1"), release("B", "v2"), release("C", "v3"), runs="v3")

    found = data_back.choose(state, state.releases[0], backups("A", "C"))

    assert isinstance(found, Finding)
    assert "the backup of B is missing" in found.problem


def test_unfitting_database_that_moved_is_refused() -> None:
    state = HostState("web1", facts=(("home", "yes"),))
    kept = replace(APP, database="/elsewhere/shop.db")

    assert "/elsewhere/shop.db" in data_back.unfitting(state, APP, kept, backups("B")[0])[0].problem
    assert data_back.unfitting(state, APP, APP, backups("B")[0]) == ()


def going_back(state: HostState) -> Plan:
    data = data_back.steps(state, APP, backups("B")[0], "r2", "<html>")
    return plan_deploy(
        state, replace(wanted(APP, force=True), action="rollback", target="r0", data=data), RolloutPolicy()
    )


def with_page(up: str = "") -> HostState:
    """A host whose site knows the page; `up` is who put one up."""
    return replace(upgradable(APP), site=f"if (-f {maintenance_page(APP)})", facts=(("maintenance", up),))


def test_plan_with_data_stops_the_writers_before_it_saves_and_replaces_anything() -> None:
    found = going_back(with_page())

    assert found.prepare[0].id == "check"
    assert ids(found)[:5] == ["maintenance.on", "stop", "backup", "database", "backend.start"]
    assert ids(found)[-2:] == ["maintenance.off", "drain"]


def test_plan_with_data_flips_back_without_proof_since_nothing_answers_then() -> None:
    """The former color starts again only when the former data is back: an undo goes in reverse."""
    text = undo(going_back(with_page()), "backend.cutover")

    assert "podman start" not in text
    assert "live/backend.green" in text


def test_plan_with_data_replaces_every_service_since_all_writers_were_stopped() -> None:
    kept = {step.id for step in going_back(with_page()).steps}

    assert {"backend.start", "frontend.start"} <= kept


@pytest.mark.parametrize(
    ("up", "shown"),
    [("", True), (maintenance.BY_RUN, True), (maintenance.BY_HAND, False), (maintenance.BY_SETTING, False)],
)
def test_plan_with_data_leaves_a_page_that_is_not_a_runs(up: str, shown: bool) -> None:
    assert ("maintenance.off" in ids(going_back(with_page(up)))) is shown


def test_plan_with_data_says_what_becomes_of_it_and_forgets_what_was_set_aside() -> None:
    found = going_back(with_page())

    assert any("that of now is kept as backup r2" in note for note in found.notes)
    assert ".before-" in found.finalize[-1].script.text
