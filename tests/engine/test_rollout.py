"""A rollout over several hosts: locks, the barrier, batches, and the effect of a failed host on the others."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest

from rolling_upgrade.engine import lock_file, remote_run
from rolling_upgrade.engine import rollout as rolling
from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.host_run import RunEnd
from rolling_upgrade.engine.model import Channels, HostResult, HostState, Phase
from rolling_upgrade.engine.plan import Plan, Step
from rolling_upgrade.engine.remote_run import RemoteRun
from rolling_upgrade.engine.rollout import HostOutcome, HostRun, roll_out
from rolling_upgrade.engine.shell import script
from rolling_upgrade.errors import (
    ConnectionDropped,
    HostUnreachable,
    Interrupted,
    LockHeld,
    LockLost,
    RollingError,
    StepFailed,
)
from tests.engine.test_observation import EMPTY, text
from tests.support.scripted_host import Scene, empty_plan, fail_on_replan, rollout, three_steps

FAILS = [Answer(1, "it broke")]
HELD = Answer(lock_file.HELD_STATUS, "token=t\nowner=bob\nworkstation=ci\npid=7\nreason=deploy v1\n")
STEPS = ["step a", "step b", "step c"]


@pytest.fixture
def scene() -> Scene:
    return Scene()


class NoMessages:
    """No channel is configured."""

    def started(self, host_runs: Sequence[HostRun]) -> None:
        """Send nothing."""

    def of_host(self, plan: Plan) -> tuple[None, Channels, tuple[str, ...]]:
        return None, Channels(), ()


def go(scene: Scene, *members: HostRun, batch: str = "100%", messages: NoMessages | None = None) -> list[HostOutcome]:
    return roll_out(members, fail_on_replan, rollout(batch), scene.context, messages or NoMessages(), bytes)


def results(outcomes: Iterable[HostOutcome]) -> dict[str, HostResult]:
    return {outcome.summary.host: outcome.summary.result for outcome in outcomes}


def test_roll_out_upgrades_all_hosts(scene: Scene) -> None:
    outcomes = go(scene, *(scene.host_run(name) for name in ("web1", "web2", "web3")))

    assert set(results(outcomes).values()) == {HostResult.UPGRADED}
    assert scene.calls("web2") == ["lock", "step backup", *STEPS, "step record"]


def test_roll_out_first_host_is_locked_alone(scene: Scene) -> None:
    def nobody_else() -> None:
        assert scene.log == ["web1 lock"]

    go(scene, scene.host_run("web1", lock=[nobody_else]), scene.host_run("web2"), scene.host_run("web3"))

    assert scene.log[0] == "web1 lock"


def test_roll_out_lock_held_on_the_second_host_releases_the_first(scene: Scene) -> None:
    with pytest.raises(LockHeld, match=r"web2: locked by bob@ci \(process 7\): deploy v1"):
        go(scene, scene.host_run("web1"), scene.host_run("web2", lock=[HELD]))

    assert scene.log == ["web1 lock", "web2 lock", "web1 unlock"]


def test_roll_out_lock_held_on_the_first_host_touches_no_other(scene: Scene) -> None:
    with pytest.raises(LockHeld):
        go(scene, scene.host_run("web1", lock=[HELD]), scene.host_run("web2"))

    assert scene.log == ["web1 lock"]


@pytest.mark.parametrize("error", [HostUnreachable("web2: away."), ConnectionDropped("web2: dropped.")])
def test_roll_out_host_lost_while_locking_releases_the_others(error: Exception, scene: Scene) -> None:
    with pytest.raises(type(error)):
        go(scene, scene.host_run("web1"), scene.host_run("web2", lock=[error]), scene.host_run("web3"))

    assert {"web1 unlock", "web3 unlock"} <= set(scene.log)
    assert not [entry for entry in scene.log if "step" in entry]


def test_roll_out_running_step_of_an_earlier_run_raises_lock_held(scene: Scene) -> None:
    with pytest.raises(LockHeld, match="a step of an earlier run is still running"):
        go(scene, scene.host_run("web1", lock=[Answer(lock_file.BUSY_STATUS, "")]))


def test_roll_out_takeover_is_reported(scene: Scene) -> None:
    taken = Answer(0, "takeover\ntoken=t\nowner=bob\nworkstation=ci\npid=7\nreason=deploy v1\n" + EMPTY)

    go(scene, scene.host_run("web1", lock=[taken]))

    assert "took over the lock of bob@ci (process 7): deploy v1" in scene.titles(Phase.NOTE)[0]


def test_roll_out_passes_a_dead_token_only_to_its_host(scene: Scene) -> None:
    members = [scene.host_run("web1"), scene.host_run("web2", plan=three_steps("web2", replaceable_token="dead-token"))]

    go(scene, *members)

    assert ["dead-token" in member.host.texts["lock"] for member in members] == [False, True]  # type: ignore[attr-defined]


def test_roll_out_does_not_lock_an_up_to_date_host(scene: Scene) -> None:
    outcomes = go(scene, scene.host_run("web1", plan=empty_plan("web1")), scene.host_run("web2"))

    assert results(outcomes) == {"web1": HostResult.UNCHANGED, "web2": HostResult.UPGRADED}
    assert scene.calls("web1") == []


def test_roll_out_replans_a_changed_host(scene: Scene) -> None:
    changed = Answer(0, text(active="backend.green"))
    seen: list[HostState] = []

    def replan(state: HostState) -> Plan:
        seen.append(state)
        return three_steps(state.host)

    outcomes = roll_out([scene.host_run("web1", lock=[changed])], replan, rollout(), scene.context, NoMessages(), bytes)

    assert ([name for name, _ in seen[0].active], results(outcomes)) == (["backend"], {"web1": HostResult.UPGRADED})


def test_roll_out_unlocks_a_host_that_is_up_to_date_by_now(scene: Scene) -> None:
    member = scene.host_run("web1", lock=[Answer(0, text(active="backend.green"))])

    outcomes = roll_out([member], lambda state: empty_plan(state.host), rollout(), scene.context, NoMessages(), bytes)

    assert (results(outcomes), scene.calls("web1")) == ({"web1": HostResult.UNCHANGED}, ["lock", "unlock"])


def test_roll_out_failed_preparation_stops_all_hosts_at_the_barrier(scene: Scene) -> None:
    outcomes = go(scene, scene.host_run("web1"), scene.host_run("web2", step_backup=FAILS), scene.host_run("web3"))

    assert results(outcomes) == {
        "web1": HostResult.NOT_STARTED,
        "web2": HostResult.UNDONE,
        "web3": HostResult.NOT_STARTED,
    }
    assert not [entry for entry in scene.log if entry.endswith(tuple(STEPS))]
    assert {"web1 unlock", "web3 unlock", "web2 step abandon"} <= set(scene.log)


def test_roll_out_single_host_that_ends_before_its_lock_is_noticed_has_an_outcome(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single host prepares at once. After a lost connection, its lock and its end arrive together."""
    wait_for = RemoteRun.wait_for

    def late(remote: RemoteRun, state: str) -> RunEnd | None:
        remote.end()
        return wait_for(remote, state)

    monkeypatch.setattr(RemoteRun, "wait_for", late)

    [outcome] = go(scene, scene.host_run("web1", step_backup=FAILS))

    assert (outcome.summary.result, "it broke" in outcome.summary.cause) == (HostResult.UNDONE, True)


def test_roll_out_no_host_continues_before_all_are_prepared(scene: Scene) -> None:
    go(scene, *(scene.host_run(name) for name in ("web1", "web2", "web3")))

    last_prepared = max(n for n, entry in enumerate(scene.log) if entry.endswith("step backup"))
    assert last_prepared < min(n for n, entry in enumerate(scene.log) if entry.endswith("step a"))


def test_roll_out_failed_batch_leaves_later_hosts_unchanged(scene: Scene) -> None:
    members = [scene.host_run("web1"), scene.host_run("web2", step_b=FAILS), scene.host_run("web3")]

    outcomes = go(scene, *members, batch="1")

    assert results(outcomes) == {
        "web1": HostResult.UPGRADED,
        "web2": HostResult.UNDONE,
        "web3": HostResult.NOT_STARTED,
    }
    assert scene.calls("web3")[-1] == "unlock"
    assert not set(STEPS) & set(scene.calls("web3"))


def test_roll_out_hosts_of_one_batch_do_not_stop_each_other(scene: Scene) -> None:
    outcomes = go(scene, scene.host_run("web1", step_a=FAILS), scene.host_run("web2"))

    assert results(outcomes) == {"web1": HostResult.UNDONE, "web2": HostResult.UPGRADED}


@pytest.mark.parametrize(
    ("replies", "result", "error"),
    [
        ({"step_b": [Answer(lock_file.LOST_STATUS, "")]}, HostResult.UNKNOWN, LockLost),
        ({"step_b": [ConnectionDropped("gone")] * 9}, HostResult.UNKNOWN, HostUnreachable),
        ({"step_b": FAILS}, HostResult.UNDONE, StepFailed),
        ({"step_b": FAILS, "step_undo": FAILS}, HostResult.UNDO_FAILED, Exception),
    ],
)
def test_roll_out_outcome_reflects_the_state_of_the_host(
    replies: dict[str, Any],
    result: HostResult,
    error: type[Exception],
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_run, "RECONNECT_SECONDS", -1)
    (outcome,) = go(scene, scene.host_run("web1", **replies))

    assert outcome.summary.result is result
    assert isinstance(outcome.error, error)
    assert outcome.summary.cause == outcome.error.message


def test_roll_out_unrecorded_release_has_an_unknown_outcome(scene: Scene) -> None:
    (outcome,) = go(scene, scene.host_run("web1", step_record=[Answer(1, "disk full")]))

    assert outcome.summary.result is HostResult.UNKNOWN
    assert "disk full" in outcome.summary.cause


def test_roll_out_interrupted_while_locking_releases_all_hosts(scene: Scene) -> None:
    with pytest.raises(Interrupted, match="before anything was changed"):
        go(scene, scene.host_run("web1", lock=[scene.context.cancelled.set]), scene.host_run("web2"))

    assert scene.log == ["web1 lock", "web1 unlock"]


def test_roll_out_interrupted_in_the_first_batch_undoes_it_and_starts_no_other(scene: Scene) -> None:
    outcomes = go(
        scene, scene.host_run("web1", step_a=[scene.context.cancelled.set]), scene.host_run("web2"), batch="1"
    )

    assert results(outcomes) == {"web1": HostResult.UNDONE, "web2": HostResult.NOT_STARTED}
    assert isinstance(outcomes[0].error, Interrupted)


def test_roll_out_truncated_observation_releases_the_locks_of_others(scene: Scene) -> None:
    with pytest.raises(Exception, match="truncated"):
        go(scene, scene.host_run("web1"), scene.host_run("web2", lock=[Answer(0, "@@facts\n")]))

    assert "web1 unlock" in scene.log


def test_wait_for_all_first_ctrl_c_cancels_and_the_second_is_only_reported(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    presses = iter([signal.SIGINT, signal.SIGTERM])

    def wait(pending: set[Future[None]], timeout: float) -> tuple[set[Future[None]], set[Future[None]]]:
        press = next(presses, None)
        if press is None:
            return pending, set()
        signal.raise_signal(press)
        return set(), pending

    monkeypatch.setattr(rolling, "wait", wait)

    interrupts = rolling.Interrupts(scene.context)
    with interrupts:
        rolling.wait_for_all([Future()], interrupts)

    assert scene.context.cancelled.is_set()
    assert [title.partition(":")[0] for title in scene.titles(Phase.NOTE)] == ["stopping", "already stopping"]


class Interrupting(NoMessages):
    """The operator presses Ctrl-C between the phases, while no host is waited for."""

    def started(self, host_runs: Sequence[HostRun]) -> None:
        signal.raise_signal(signal.SIGINT)


def test_roll_out_interrupted_between_its_phases_cancels_the_run_on_its_hosts(scene: Scene) -> None:
    handler = signal.getsignal(signal.SIGINT)

    outcomes = go(scene, scene.host_run("web1"), scene.host_run("web2"), messages=Interrupting())

    assert set(results(outcomes).values()) == {HostResult.NOT_STARTED}
    assert [scene.calls(name)[-1] for name in ("web1", "web2")] == ["unlock", "unlock"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_roll_out_unexpected_error_ends_the_run_on_one_host_only(scene: Scene) -> None:
    members = [scene.host_run("web1", step_b=[ZeroDivisionError("a defect")]), scene.host_run("web2")]

    outcomes = go(scene, *members)

    assert results(outcomes) == {"web1": HostResult.UNDONE, "web2": HostResult.UPGRADED}
    assert "unexpected error" in next(outcome.summary.cause for outcome in outcomes if outcome.error)


def test_roll_out_unexpected_error_while_preparing_leaves_all_hosts_unchanged(scene: Scene) -> None:
    members = [scene.host_run("web1", step_backup=[ZeroDivisionError("a defect")]), scene.host_run("web2")]

    assert results(go(scene, *members)) == {"web1": HostResult.UNDONE, "web2": HostResult.NOT_STARTED}
    assert scene.calls("web2")[-1] == "unlock"


def test_roll_out_unexpected_error_while_locking_releases_the_others(scene: Scene) -> None:
    members = [scene.host_run("web1"), scene.host_run("web2", lock=[ZeroDivisionError("a defect")])]

    with pytest.raises(RollingError, match="unexpected error"):
        go(scene, *members)
    assert scene.calls("web1")[-1] == "unlock"


def test_roll_out_unexpected_error_while_a_lock_is_released_is_a_note(scene: Scene) -> None:
    members = [
        scene.host_run("web1", step_backup=[ZeroDivisionError("a defect")]),
        scene.host_run("web2", unlock=[ZeroDivisionError("another")]),
        scene.host_run("web3"),
    ]

    assert results(go(scene, *members)) == {
        "web1": HostResult.UNDONE,
        "web2": HostResult.NOT_STARTED,
        "web3": HostResult.NOT_STARTED,
    }
    assert scene.calls("web3")[-1] == "unlock"
    assert any("could not be released" in title for title in scene.titles(Phase.NOTE))


def releasing(name: str) -> Plan:
    """Return a plan with a release command."""
    step = Step("release", "migrate", script("migrate"), 10, script("undo release"), "remove the container")
    return replace(three_steps(name), release=(step,))


def members_with_release(scene: Scene, **replies: list[Answer]) -> list[HostRun]:
    """Return three hosts: web1 has no release command, the others have one."""
    return [
        scene.host_run("web1"),
        scene.host_run("web2", plan=releasing("web2"), **replies),
        scene.host_run("web3", plan=releasing("web3")),
    ]


@pytest.mark.parametrize("batch", ["1", "100%"])
def test_roll_out_release_command_runs_once_before_the_steps_of_all_hosts(batch: str, scene: Scene) -> None:
    outcomes = go(scene, *members_with_release(scene), batch=batch)

    assert set(results(outcomes).values()) == {HostResult.UPGRADED}
    released = [entry for entry in scene.log if entry.endswith("step release")]
    assert released == ["web2 step release"]
    at = scene.log.index("web2 step release")
    assert all(
        scene.log.index(f"{name} step backup") < at < scene.log.index(f"{name} step a") for name in results(outcomes)
    )
    assert [outcome.summary.host for outcome in outcomes if outcome.has_released] == ["web2"]


def test_roll_out_failed_release_command_leaves_all_hosts_as_they_were(scene: Scene) -> None:
    outcomes = go(scene, *members_with_release(scene, step_release=FAILS))

    assert results(outcomes) == {
        "web1": HostResult.NOT_STARTED,
        "web2": HostResult.UNDONE,
        "web3": HostResult.NOT_STARTED,
    }
    assert not [entry for entry in scene.log if entry.endswith(tuple(STEPS))]
    assert [outcome.has_released for outcome in outcomes if outcome.summary.host == "web2"] == [True]


def test_roll_out_release_command_of_a_host_that_fails_later_is_known(scene: Scene) -> None:
    [outcome] = go(scene, scene.host_run("web1", plan=releasing("web1"), step_a=FAILS))

    assert (outcome.summary.result, outcome.has_released) == (HostResult.UNDONE, True)


def test_roll_out_interrupted_before_the_release_command_runs_none(scene: Scene) -> None:
    def interrupt() -> None:
        scene.context.cancelled.set()

    outcomes = go(
        scene, scene.host_run("web1", plan=releasing("web1"), step_backup=[interrupt]), scene.host_run("web2")
    )

    assert HostResult.UPGRADED not in results(outcomes).values()
    assert "web1 step release" not in scene.log
