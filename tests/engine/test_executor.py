"""Executing a plan: failures, groups of steps, lost locks and Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from rolling_upgrade.engine import executor, lock_file
from rolling_upgrade.engine.host import Answer, Cancelled
from rolling_upgrade.engine.model import Phase
from rolling_upgrade.engine.plan import Step
from rolling_upgrade.engine.progress import Progress
from rolling_upgrade.errors import Interrupted, LockLost, StepFailed, UndoFailed
from tests.support.scripted_host import Scene, ScriptedHost, three_steps

PLAN = three_steps()
UNDONE = ["step a", "step b", "step undo", "step abandon"]


class Runner:
    """Passes steps to a scripted host; records which ones nothing stops."""

    def __init__(self, host: ScriptedHost) -> None:
        self._host = host
        self.shielded: set[str] = set()

    def run(self, step: Step, *, stop: Callable[[], bool], on_progress: Callable[[Progress], None]) -> Answer:
        answer = self._host.respond(f"# step {step.id}\n{step.script.text}")
        if not stop():
            self.shielded.add(step.id)
        return answer


@pytest.fixture
def scene() -> Scene:
    return Scene()


def apply(scene: Scene, host: ScriptedHost) -> None:
    executor.apply(Runner(host), PLAN, scene.context)


def test_apply_good_steps_run_in_order(scene: Scene) -> None:
    apply(scene, scene.host())

    assert scene.calls("web1") == ["step a", "step b", "step c"]
    assert scene.titles(Phase.DONE) == ["do a", "do b", "do c"]


def test_apply_failing_step_is_undone_in_reverse_and_marked_bad(scene: Scene) -> None:
    host = scene.host(step_b=[Answer(1, "it broke\n")])

    with pytest.raises(StepFailed, match=r"web1: do b: failed \(status 1\)\.\nit broke"):
        apply(scene, host)

    undo = host.texts["step undo"]
    assert scene.calls("web1") == UNDONE
    assert undo.index("undo b") < undo.index("undo a")
    assert "run_outcome=undone" in host.texts["step abandon"]
    assert scene.titles(Phase.UNDONE) == ["take b back; take a back"]


def test_apply_failing_first_step_undoes_it_alone(scene: Scene) -> None:
    host = scene.host(step_a=[Answer(1, "")])

    with pytest.raises(StepFailed):
        apply(scene, host)

    assert "undo b" not in host.texts["step undo"]


def test_apply_failing_step_without_undo_undoes_earlier_steps(scene: Scene) -> None:
    host = scene.host(step_c=[Answer(1, "")])

    with pytest.raises(StepFailed):
        apply(scene, host)

    assert "undo a" in host.texts["step undo"]


def test_apply_failing_undo_is_recorded_and_raises_undo_failed(scene: Scene) -> None:
    host = scene.host(step_b=[Answer(1, "it broke")], step_undo=[Answer(1, "cannot")])

    with pytest.raises(UndoFailed) as caught:
        apply(scene, host)

    assert "it broke" in caught.value.message
    assert "cannot" in caught.value.message
    assert "rolling-upgrade status --env production --hosts web1" in caught.value.next_step
    assert "run_outcome=undo-failed" in host.texts["step abandon"]


def test_apply_undo_that_cannot_start_raises_undo_failed_and_is_recorded(scene: Scene) -> None:
    host = scene.host(step_b=[Answer(1, "it broke")], step_undo=[BlockingIOError("no more processes")])

    with pytest.raises(UndoFailed, match="no more processes"):
        apply(scene, host)

    assert "run_outcome=undo-failed" in host.texts["step abandon"]


def test_apply_after_a_lost_lock_stops_without_undo(scene: Scene) -> None:
    host = scene.host(step_b=[Answer(lock_file.LOST_STATUS, "the lock was taken over:\nowner=bob")])

    with pytest.raises(LockLost, match="owner=bob"):
        apply(scene, host)

    assert scene.calls("web1") == ["step a", "step b"]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (lock_file.BUSY_STATUS, "another step is still running"),
        (executor.TIMED_OUT_STATUS, "it did not end within 10 s"),
    ],
)
def test_apply_special_status_is_explained(status: int, words: str, scene: Scene) -> None:
    with pytest.raises(StepFailed, match=words):
        apply(scene, scene.host(step_a=[Answer(status, "")]))


def test_apply_interrupted_during_a_step_is_undone(scene: Scene) -> None:
    host = scene.host(step_b=[Cancelled("web1")])

    with pytest.raises(Interrupted, match="during: do b"):
        apply(scene, host)

    assert scene.calls("web1") == UNDONE


def test_apply_interrupted_between_steps_starts_no_further_step(scene: Scene) -> None:
    host = scene.host(step_a=[scene.context.cancelled.set])

    with pytest.raises(Interrupted, match="interrupted before: do b"):
        apply(scene, host)

    assert scene.calls("web1") == ["step a", *UNDONE[2:]]


def test_apply_undo_cannot_be_interrupted(scene: Scene) -> None:
    runner = Runner(scene.host(step_b=[scene.context.cancelled.set]))

    with pytest.raises(Interrupted):
        executor.apply(runner, PLAN, scene.context)

    assert runner.shielded == {"a", "undo", "abandon"}


def test_apply_failed_abandon_is_reported_and_keeps_the_cause(scene: Scene) -> None:
    host = scene.host(step_b=[Answer(1, "it broke")], step_abandon=[Answer(1, "disk full")])

    with pytest.raises(StepFailed, match="it broke"):
        apply(scene, host)

    assert "disk full" in scene.titles(Phase.NOTE)[0]


def test_apply_reason_in_the_history_is_the_first_line(scene: Scene) -> None:
    host = scene.host(step_b=[Answer(1, "line one\nline two")])

    with pytest.raises(StepFailed):
        apply(scene, host)

    assert "do b: failed (status 1)." in host.texts["step abandon"]
    assert "line two" not in host.texts["step abandon"]


def test_prepare_stops_at_a_failing_step_without_undo(scene: Scene) -> None:
    with pytest.raises(StepFailed):
        executor.prepare(Runner(scene.host(step_backup=[Answer(1, "")])), PLAN, scene.context)

    assert scene.calls("web1") == ["step backup"]


def test_finalize_records_even_after_an_interrupt(scene: Scene) -> None:
    host = scene.host()
    scene.context.cancelled.set()

    executor.finalize(Runner(host), PLAN, scene.context, 12.3)

    assert scene.calls("web1") == ["step record"]
    assert "run_seconds=12.3" in host.texts["step record"]


def test_run_step_reports_duration_and_output(scene: Scene) -> None:
    def work() -> None:
        scene.now += 3

    executor.run_step(Runner(scene.host(step_a=[work])), PLAN, PLAN.steps[0], scene.context)

    assert (scene.events[-1].phase, scene.events[-1].seconds) == (Phase.DONE, 3)


GROUPED = replace(PLAN, steps=tuple(replace(step, group="start" if step.id in "ab" else "") for step in PLAN.steps))


def test_apply_steps_of_a_group_run_at_the_same_time(scene: Scene) -> None:
    both = threading.Barrier(2, timeout=10)

    def meet() -> None:
        both.wait()

    executor.apply(Runner(scene.host(step_a=[meet], step_b=[meet])), GROUPED, scene.context)

    assert scene.calls("web1")[-1] == "step c"
    assert sorted(scene.titles(Phase.DONE)) == ["do a", "do b", "do c"]


def test_apply_failed_step_of_a_group_stops_the_others_and_undoes_all(scene: Scene) -> None:
    class Stopping(Runner):
        def run(self, step: Step, *, stop: Callable[[], bool], on_progress: Callable[[Progress], None]) -> Answer:
            if step.id != "a":
                return super().run(step, stop=stop, on_progress=on_progress)
            while not stop():
                threading.Event().wait(0.001)
            raise Cancelled("web1")

    host = scene.host(step_b=[Answer(1, "it broke")])
    with pytest.raises(StepFailed, match="it broke"):
        executor.apply(Stopping(host), GROUPED, scene.context)

    undo = host.texts["step undo"]
    assert undo.index("undo b") < undo.index("undo a")
    assert "step c" not in scene.calls("web1")
    assert "stopped: another step failed" in " ".join(event.detail for event in scene.events)
