"""The plans of the accessory tasks on one host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolling_upgrade.engine import accessory as containers
from rolling_upgrade.engine.model import AccessoryContainer, HostResult, HostState
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.features.accessory.plan import AccessorySpec, Action, plan
from tests.support.sample import LOCK, application, database

DB = database()
APP = replace(application(), accessories=(DB,))
UP = AccessoryContainer(
    "db", "shop-accessory-db", True, "running", "", 0, 0, DB.image, spec=containers.spec_hash(APP, DB)
)
RUNNING = HostState("web1", accessories=(UP,), facts=(("accessories", "db"),))
STOPPED = replace(RUNNING, accessories=(replace(UP, running=False, status="exited"),))
EMPTY = HostState("web1")
NEW = replace(DB, image=DB.image.with_tag("18").with_digest("sha256:" + "e" * 64))


def planned(action: Action, state: HostState, accessory: object = DB, **changes: object) -> Plan:
    values: dict[str, object] = {"accessories": (accessory,), "removed": ("db",)}
    spec = AccessorySpec(action, APP, "production", "r2", LOCK, 60, **(values | changes))  # type: ignore[arg-type]
    return plan(state, spec)


def ids(found: Plan) -> list[str]:
    return [step.id for step in found.steps]


def test_up_creates_a_missing_accessory_after_its_image_was_pulled() -> None:
    found = planned(Action.UP, EMPTY)

    assert (ids(found), [step.id for step in found.prepare]) == (["db.create"], ["pull"])
    assert "postgres@sha256:" in found.prepare[0].script.text
    assert found.result is HostResult.CHANGED


def test_up_undo_of_a_new_accessory_removes_its_container_and_keeps_its_volumes() -> None:
    undo = planned(Action.UP, EMPTY).steps[0].undo

    assert undo is not None
    assert "podman rm --force" in undo.text
    assert "volume rm" not in undo.text


def test_up_starts_a_stopped_accessory_without_a_pull() -> None:
    found = planned(Action.UP, STOPPED)

    assert (ids(found), found.prepare) == (["db.start"], ())
    assert "podman run" not in found.steps[0].script.text


def test_up_leaves_a_running_accessory_alone_and_says_that_it_differs() -> None:
    found = planned(Action.UP, RUNNING, NEW)

    assert found.empty
    assert "accessory.upgrade --env production --name db" in found.notes[0]


def test_up_with_everything_up_has_nothing_to_do() -> None:
    found = planned(Action.UP, RUNNING)

    assert (found.empty, found.notes) == (True, ())


def test_restart_skips_a_missing_accessory() -> None:
    assert ids(planned(Action.RESTART, RUNNING)) == ["db.restart"]
    assert planned(Action.RESTART, EMPTY).empty


def test_upgrade_keeps_the_old_container_until_the_new_one_is_healthy() -> None:
    found = planned(Action.UPGRADE, RUNNING, NEW)

    assert ids(found) == ["db.stop", "db.create"]
    assert [step.id for step in found.finalize] == ["db.forget", "unlock"]
    assert "shop-accessory-db-previous" in found.steps[0].script.text
    assert "postgres:17 (dddddddddddd) → registry.test:5000/postgres:18 (eeeeeeeeeeee)" in found.notes[0]


def test_upgrade_removes_a_container_of_an_earlier_upgrade_before_anything_that_is_undone() -> None:
    """An undo would otherwise replace the running container by that one."""
    found = planned(Action.UPGRADE, RUNNING, NEW)

    assert "shop-accessory-db-previous" in found.prepare[0].script.text
    assert "previous" not in planned(Action.UPGRADE, EMPTY, NEW).prepare[0].script.text


def test_upgrade_undo_starts_the_old_container_and_waits_until_it_is_healthy() -> None:
    stop, create = planned(Action.UPGRADE, RUNNING, NEW).steps

    assert create.undo is None
    assert stop.undo is not None
    assert (
        stop.undo.text.index("rename") < stop.undo.text.index("podman start") < stop.undo.text.index("healthcheck run")
    )


@pytest.mark.parametrize("changed", [database(env=()), database(command=("x",))])
def test_upgrade_renews_a_container_whose_definition_differs(changed: object) -> None:
    found = planned(Action.UPGRADE, RUNNING, changed)

    assert ids(found) == ["db.stop", "db.create"]
    assert "its definition" in found.notes[0]


def test_upgrade_without_a_difference_has_nothing_to_do() -> None:
    assert planned(Action.UPGRADE, RUNNING).empty


def test_upgrade_creates_a_missing_accessory() -> None:
    assert ids(planned(Action.UPGRADE, EMPTY)) == ["db.create"]


@pytest.mark.parametrize("data", [False, True])
def test_down_removes_only_in_the_steps_that_nothing_undoes(data: bool) -> None:
    found = planned(Action.DOWN, RUNNING, data=data)

    [stop] = found.steps
    remove, unlock = found.finalize
    assert (stop.id, remove.id, unlock.id) == ("db.stop", "db.remove", "unlock")
    assert "podman rm" not in stop.script.text
    assert ("podman volume rm" in remove.script.text) is data
    assert ("volumes stay" in found.notes[0]) is not data


def test_down_of_an_accessory_that_is_no_longer_declared() -> None:
    assert ids(planned(Action.DOWN, RUNNING, accessories=())) == ["db.stop"]


def test_down_of_a_missing_accessory_has_nothing_to_do() -> None:
    assert planned(Action.DOWN, EMPTY).empty


def test_plan_locks_the_host_and_unlocks_it_at_the_end_and_after_an_undo() -> None:
    found = planned(Action.UP, EMPTY)

    assert [step.id for step in found.acquire] == ["lock"]
    assert [step.id for step in (found.finalize[-1], found.abort[-1])] == ["unlock", "abandon"]
    assert found.record is None
