"""Executing a plan on a fake host: failures, dropped connections, lost locks and Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from rolling_upgrade.engine import detached, executor, lock_file
from rolling_upgrade.engine.host import Answer, Cancelled, Host
from rolling_upgrade.engine.image_push import Push
from rolling_upgrade.engine.model import Phase
from rolling_upgrade.engine.plan import Step
from rolling_upgrade.engine.shell import Script, script
from rolling_upgrade.errors import ConnectionDropped, HostUnreachable, Interrupted, LockLost, StepFailed, UndoFailed
from tests.support.sample import image
from tests.support.scripted_host import Scene, ScriptedHost, three_steps

DROPPED = ConnectionDropped("web1: the connection dropped.")
AWAY = HostUnreachable("web1: away.")
PLAN = three_steps()
UNDONE = ["stage a", "stage b", "abort", "stage undo", "stage abandon"]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def apply(scene: Scene, host: ScriptedHost) -> None:
    executor.apply(host, PLAN, scene.context)


def test_apply_good_steps_run_in_order_as_stages(scene: Scene) -> None:
    apply(scene, scene.host())

    assert scene.calls("web1") == ["stage a", "stage b", "stage c"]
    assert scene.titles(Phase.DONE) == ["do a", "do b", "do c"]


def test_apply_failing_step_is_undone_in_reverse_and_marked_bad(scene: Scene) -> None:
    host = scene.host(stage_b=[Answer(1, "it broke\n")])

    with pytest.raises(StepFailed, match=r"web1: do b: failed \(status 1\)\.\nit broke"):
        apply(scene, host)

    undo = host.texts["stage undo"]
    assert scene.calls("web1") == UNDONE
    assert undo.index("undo b") < undo.index("undo a")
    assert "run_outcome=undone" in host.texts["stage abandon"]
    assert scene.titles(Phase.UNDONE) == ["take b back; take a back"]


def test_apply_failing_first_step_undoes_it_alone(scene: Scene) -> None:
    host = scene.host(stage_a=[Answer(1, "")])

    with pytest.raises(StepFailed):
        apply(scene, host)

    assert "undo b" not in host.texts["stage undo"]


def test_apply_failing_step_without_undo_undoes_earlier_steps(scene: Scene) -> None:
    host = scene.host(stage_c=[Answer(1, "")])

    with pytest.raises(StepFailed):
        apply(scene, host)

    assert "undo a" in host.texts["stage undo"]


def test_apply_failing_undo_is_recorded_and_raises_undo_failed(scene: Scene) -> None:
    host = scene.host(stage_b=[Answer(1, "it broke")], stage_undo=[Answer(1, "cannot")])

    with pytest.raises(UndoFailed) as caught:
        apply(scene, host)

    assert "it broke" in caught.value.message
    assert "cannot" in caught.value.message
    assert "rolling-upgrade status --env production --hosts web1" in caught.value.next_step
    assert "run_outcome=undo-failed" in host.texts["stage abandon"]


def test_apply_does_not_undo_while_a_stage_cannot_be_ended(scene: Scene) -> None:
    host = scene.host(stage_b=[Answer(1, "")], abort=[Answer(1, "")])

    with pytest.raises(UndoFailed):
        apply(scene, host)

    assert "stage undo" not in scene.calls("web1")


def test_apply_after_a_lost_lock_stops_without_undo(scene: Scene) -> None:
    host = scene.host(stage_b=[Answer(lock_file.LOST_STATUS, "the lock was taken over:\nowner=bob")])

    with pytest.raises(LockLost, match="owner=bob"):
        apply(scene, host)

    assert scene.calls("web1") == ["stage a", "stage b"]


def test_apply_reattaches_after_a_dropped_connection(scene: Scene) -> None:
    apply(scene, scene.host(stage_b=[DROPPED], attach_b=[Answer(0, "")]))

    assert scene.calls("web1") == ["stage a", "stage b", "attach b", "stage c"]
    assert "Reconnecting." in scene.titles(Phase.NOTE)[0]


def test_apply_undoes_a_stage_that_failed_while_disconnected(scene: Scene) -> None:
    host = scene.host(stage_b=[DROPPED], attach_b=[Answer(1, "it broke")])

    with pytest.raises(StepFailed, match="it broke"):
        apply(scene, host)

    assert scene.calls("web1") == ["stage a", "stage b", "attach b", *UNDONE[2:]]


def test_apply_retries_a_temporarily_unreachable_host(scene: Scene) -> None:
    apply(scene, scene.host(stage_b=[DROPPED], attach_b=[AWAY, DROPPED, AWAY, Answer(0, "")]))

    assert scene.calls("web1").count("attach b") == 4
    assert scene.now == 1003


def test_apply_lost_host_has_an_unknown_outcome_and_no_undo(scene: Scene) -> None:
    host = scene.host(stage_b=[DROPPED], attach_b=[AWAY] * 100)

    with pytest.raises(HostUnreachable, match="the outcome is unknown"):
        apply(scene, host)

    assert {"stage undo", "stage abandon"} & set(scene.calls("web1")) == set()
    assert scene.now == pytest.approx(1061, abs=1)


def test_apply_resends_a_stage_that_never_started(scene: Scene) -> None:
    apply(scene, scene.host(stage_b=[DROPPED], attach_b=[Answer(detached.NEVER_BEGAN_STATUS, "")]))

    assert scene.calls("web1") == ["stage a", "stage b", "attach b", "stage b", "stage c"]


def test_apply_second_drop_of_one_stage_is_undone(scene: Scene) -> None:
    host = scene.host(stage_b=[DROPPED, DROPPED], attach_b=[Answer(detached.NEVER_BEGAN_STATUS, "")])

    with pytest.raises(ConnectionDropped):
        apply(scene, host)

    assert scene.calls("web1")[-3:] == UNDONE[2:]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (detached.BUSY_STATUS, "another stage is still running"),
        (detached.TIMED_OUT_STATUS, "it did not end within 10 s"),
        (detached.DIED_STATUS, "the stage was killed on the host"),
    ],
)
def test_apply_special_status_is_explained(status: int, words: str, scene: Scene) -> None:
    with pytest.raises(StepFailed, match=words):
        apply(scene, scene.host(stage_a=[Answer(status, "")]))


def test_apply_interrupted_during_a_step_is_undone(scene: Scene) -> None:
    host = scene.host(stage_b=[Cancelled("web1")])

    with pytest.raises(Interrupted, match="interrupted during: do b"):
        apply(scene, host)

    assert scene.calls("web1") == UNDONE


def test_apply_interrupted_between_steps_starts_no_further_step(scene: Scene) -> None:
    host = scene.host(stage_a=[scene.context.cancelled.set])

    with pytest.raises(Interrupted, match="interrupted before: do b"):
        apply(scene, host)

    assert scene.calls("web1") == ["stage a", *UNDONE[2:]]


def test_apply_undo_cannot_be_interrupted(scene: Scene) -> None:
    host = scene.host(stage_b=[Cancelled("web1")])
    scene.context.cancelled.clear()

    with pytest.raises(Interrupted):
        apply(scene, host)

    shielded = {kind for kind, on in host.shielded.items() if on}
    assert shielded == {"abort", "stage undo", "stage abandon"}


def test_apply_failed_abandon_is_reported_and_keeps_the_cause(scene: Scene) -> None:
    host = scene.host(stage_b=[Answer(1, "it broke")], stage_abandon=[Answer(1, "disk full")])

    with pytest.raises(StepFailed, match="it broke"):
        apply(scene, host)

    assert "disk full" in scene.titles(Phase.NOTE)[0]


def test_apply_reason_in_the_history_is_the_first_line(scene: Scene) -> None:
    host = scene.host(stage_b=[Answer(1, "line one\nline two")])

    with pytest.raises(StepFailed):
        apply(scene, host)

    assert "do b: failed (status 1)." in host.texts["stage abandon"]
    assert "line two" not in host.texts["stage abandon"]


def test_prepare_stops_at_a_failing_step_without_undo(scene: Scene) -> None:
    with pytest.raises(StepFailed):
        executor.prepare(scene.host(stage_backup=[Answer(1, "")]), PLAN, scene.context)

    assert scene.calls("web1") == ["stage backup"]


def test_prepare_step_with_pushes_runs_while_the_images_are_offered(scene: Scene) -> None:
    @contextmanager
    def offer(host: Host, step: Step) -> Iterator[Script]:
        scene.log.append(f"{host.name} offer {step.id}")
        yield Script("images_at=here", ("here",))
        scene.log.append(f"{host.name} withdraw {step.id}")

    push = Push("backend", image("backend"), "sha256:" + "e" * 64, 3, 1, 5000)
    plan = replace(PLAN, prepare=(*PLAN.prepare, Step("push", "push", script("do push"), 10, pushes=(push,))))
    host = scene.host()

    executor.prepare(host, plan, replace(scene.context, offer=offer))

    assert scene.calls("web1") == ["stage backup", "offer push", "stage push", "withdraw push"]
    assert "images_at=here\ndo push" in host.texts["stage push"]


def test_finalize_records_even_after_an_interrupt(scene: Scene) -> None:
    host = scene.host()
    scene.context.cancelled.set()

    executor.finalize(host, PLAN, scene.context, 12.3)

    assert scene.calls("web1") == ["stage record"]
    assert "run_seconds=12.3" in host.texts["stage record"]


def test_unlock_of_an_unreachable_host_succeeds(scene: Scene) -> None:
    executor.unlock(scene.host(unlock=[AWAY]), PLAN, scene.context)

    assert "its lease will expire" in scene.titles(Phase.NOTE)[0]


def test_run_step_reports_duration_and_output(scene: Scene) -> None:
    def work() -> None:
        scene.now += 3

    executor.run_step(scene.host(stage_a=[work]), PLAN, PLAN.steps[0], scene.context)

    assert (scene.events[-1].phase, scene.events[-1].seconds) == (Phase.DONE, 3)
