"""Execute one plan on its host: run the steps, and undo them when one fails.

The executor runs on the host, and needs no workstation: see engine/host_run.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol

from rolling_upgrade.engine import history, lock_file
from rolling_upgrade.engine.host import Answer, Cancelled, Host
from rolling_upgrade.engine.model import Event, Outcome, Phase
from rolling_upgrade.engine.plan import Plan, Step, step_groups
from rolling_upgrade.engine.progress import Progress
from rolling_upgrade.engine.shell import Script, script
from rolling_upgrade.errors import (
    PROGRAM,
    Interrupted,
    LockHeld,
    LockLost,
    RollingError,
    StepFailed,
    UndoFailed,
    unexpected,
)

#: Exit status of a step that ran longer than its time limit. Source: timeout(1).
TIMED_OUT_STATUS = 124


@dataclass(frozen=True)
class RunContext:
    """State shared by all steps of a run.

    Attributes:
        run_id: the id of the run and of its release, and the token of its locks.
        lease_seconds: how long a host's lock outlasts each step.
        on_event: receives every event.
        clock: gives Unix seconds.
        cancelled: set by Ctrl-C; on a host by the word `cancel`.
        offer: serves the images of a step to its host while the context is open, and returns the shell text that
            comes before the step's script.
    """

    run_id: str
    lease_seconds: float
    on_event: Callable[[Event], None]
    clock: Callable[[], float] = time.time
    cancelled: threading.Event = field(default_factory=threading.Event)
    offer: Callable[[Host, Step], AbstractContextManager[Script]] | None = None

    def emit(
        self, phase: Phase, title: str, host: str = "", step: str = "", seconds: float = 0, detail: str = ""
    ) -> None:
        """Report an event that happens now."""
        self.on_event(Event(self.clock(), phase, title, host, step, seconds, detail))


class StepRunner(Protocol):
    """Runs the script of a step on the host."""

    def run(self, step: Step, *, stop: Callable[[], bool], on_progress: Callable[[Progress], None]) -> Answer:
        """Run the step to its end. Raises Cancelled once `stop` returns True and the step has ended."""


def run_step(
    runner: StepRunner, plan: Plan, step: Step, context: RunContext, stop: Callable[[], bool] | None = None
) -> Answer:
    """Run one step to its end. `stop` ends it early; by default, a cancelled run does.

    Raises:
        StepFailed: the step failed.
        LockLost: another run took the lock over.
        Interrupted: the step was stopped.
    """
    should_stop = stop or context.cancelled.is_set
    if stop is None and context.cancelled.is_set():
        raise Interrupted(f"{plan.host}: interrupted before: {step.title}.")
    context.emit(Phase.STARTED, step.title, plan.host, step.id)
    began = context.clock()

    def report(found: Progress) -> None:
        now = context.clock()
        phase = Phase.OUTPUT if found.lines else Phase.PROGRESS
        context.on_event(
            Event(
                *(now, phase, step.title, plan.host, step.id, now - began, found.lines or found.text),
                sent=found.sent,
                total=found.total,
            )
        )

    try:
        answer = runner.run(step, stop=should_stop, on_progress=report)
        _check_answer(plan, step, answer)
    except Cancelled:
        cause = "interrupted" if context.cancelled.is_set() else "stopped: another step failed"
        error = Interrupted(f"{plan.host}: {cause} during: {step.title}.")
        context.emit(Phase.FAILED, step.title, plan.host, step.id, context.clock() - began, error.message)
        raise error from None
    except RollingError as error:
        context.emit(Phase.FAILED, step.title, plan.host, step.id, context.clock() - began, error.message)
        raise
    output = "" if step.shows_output else answer.output.strip()
    context.emit(Phase.DONE, step.title, plan.host, step.id, context.clock() - began, output)
    return answer


def _check_answer(plan: Plan, step: Step, answer: Answer) -> None:
    if answer.ok:
        return
    if answer.status == lock_file.LOST_STATUS:
        raise LockLost(
            f"{plan.host}: another run took over the lock; this run stops here.\n{answer.output_tail}",
            next_step=f"{PROGRAM} status shows what the other run did",
        )
    if answer.status == lock_file.HELD_STATUS:
        raise LockHeld(f"{plan.host}: {step.title}: another run holds the lock of the host.\n{answer.output_tail}")
    reasons = {
        lock_file.BUSY_STATUS: "another step is still running on the host",
        TIMED_OUT_STATUS: f"it did not end within {step.timeout_seconds:g} s",
    }
    details = "\n".join(part for part in (reasons.get(answer.status, ""), answer.output_tail) if part)
    raise StepFailed(f"{plan.host}: {step.title}: failed (status {answer.status}).\n{details}".rstrip())


def prepare(runner: StepRunner, plan: Plan, context: RunContext) -> None:
    """Run the preparation steps, which have no effect on visitors."""
    for step in plan.prepare:
        run_step(runner, plan, step, context)


def apply(runner: StepRunner, plan: Plan, context: RunContext) -> None:
    """Run the steps. If one fails, undo the started steps and raise its error, or UndoFailed if the undo fails too.

    Without a lock there is no undo, and Ctrl-C takes effect between two steps: a package manager that is stopped in the
    middle leaves the host half-configured.
    """
    started: list[Step] = []
    started_at = context.clock()
    try:
        for group in step_groups(plan.steps):
            if context.cancelled.is_set():
                raise Interrupted(f"{plan.host}: interrupted before: {group[0].title}.")
            started += group
            _run_group(runner, plan, group, context)
    except LockLost:
        raise
    except Exception as error:
        cause = as_rolling_error(plan, error)
        if plan.is_locked:
            undo(runner, plan, started, context, cause, started_at)
        raise cause from error


def as_rolling_error(plan: Plan, error: Exception) -> RollingError:
    """Return the error, or the error that reports a defect of the product."""
    if isinstance(error, RollingError):
        return error
    next_step = f"{PROGRAM} status --env {plan.environment} shows the state of the host"
    return unexpected(plan.host, error, RollingError, next_step=next_step)


def _run_group(runner: StepRunner, plan: Plan, group: Sequence[Step], context: RunContext) -> None:
    """Run steps at the same time. The first failure stops the others, and is raised when all have ended."""
    if len(group) == 1:
        run_step(runner, plan, group[0], context, None if plan.is_locked else _never)
        return
    errors: list[Exception] = []

    def run(step: Step) -> None:
        try:
            run_step(runner, plan, step, context, lambda: bool(errors) or context.cancelled.is_set())
        except Exception as error:  # noqa: BLE001 - raised again below, in the order of the failures
            errors.append(error)

    with ThreadPoolExecutor(len(group)) as pool:
        list(pool.map(run, group))
    if errors:
        raise errors[0]


def finalize(runner: StepRunner, plan: Plan, context: RunContext, seconds: float) -> None:
    """Run the final steps, which Ctrl-C does not stop; `seconds` is the duration of the plan's steps."""
    reason = plan.record.reason if plan.record else ""
    for step in plan.finalize:
        run_step(runner, plan, _with_ending(step, Outcome.GOOD, reason, seconds), context, _never)


def _never() -> bool:
    return False


def _with_ending(step: Step, outcome: Outcome, reason: str, seconds: float) -> Step:
    """Set the outcome, reason and duration of the history line, which are known only now."""
    return replace(step, script=script(history.ending(outcome, reason, seconds), step.script))


def undo(
    runner: StepRunner, plan: Plan, started: list[Step], context: RunContext, cause: RollingError, started_at: float
) -> None:
    """Undo the started steps, record the failure and release the host's lock.

    Args:
        started: the steps to undo, oldest first.
        cause: the error that made the undo necessary.
        started_at: the start of the first step in Unix seconds.

    Raises:
        UndoFailed: the undo failed; the host needs manual intervention.
    """
    undone = [step for step in reversed(started) if step.undo is not None]
    title = "; ".join(step.undo_title for step in undone) or "nothing to undo"
    context.emit(Phase.UNDOING, title, plan.host, "undo")
    began = context.clock()
    outcome, failure = Outcome.UNDONE, None
    if undone:
        parts = [step.undo for step in undone if step.undo is not None]
        seconds = sum(step.timeout_seconds for step in undone)
        try:
            _run_shielded(runner, plan, Step("undo", title, undo_all(parts), seconds))
        except RollingError as error:
            outcome, failure = Outcome.UNDO_FAILED, error
    reason = cause.message.splitlines()[0]
    _record_failure(runner, plan, context, outcome, reason, context.clock() - started_at)
    if failure is not None:
        context.emit(Phase.FAILED, "undo", plan.host, "undo", context.clock() - began, str(failure))
        raise UndoFailed(
            f"{plan.host}: {cause.message}\nThe undo failed as well: {failure}",
            next_step=f"{PROGRAM} status --env {plan.environment} --hosts {plan.host}; "
            f"the log is in {plan.home}/journal/{context.run_id} on the host",
        ) from failure
    context.emit(Phase.UNDONE, title, plan.host, "undo", context.clock() - began)


def undo_all(parts: list[Script]) -> Script:
    """Run every undo in a subshell, even after another failed; fail if any failed."""
    blocks = [f"(\nset -eu\n{part.text}\n)\nundone=$((undone | $?))" for part in parts]
    text = "\n".join(["set +e", "undone=0", *blocks, '[ "$undone" -eq 0 ]'])
    return Script(text + "\n", tuple(secret for part in parts for secret in part.secrets))


def _run_shielded(runner: StepRunner, plan: Plan, step: Step) -> None:
    """Run a step of the undo, which nothing stops."""
    try:
        answer = runner.run(step, stop=_never, on_progress=lambda _: None)
    except Exception as error:
        # A host without memory or processes cannot start the step.
        raise as_rolling_error(plan, error) from error
    _check_answer(plan, step, answer)


def _record_failure(
    runner: StepRunner, plan: Plan, context: RunContext, outcome: Outcome, reason: str, seconds: float
) -> None:
    for step in plan.abort:
        try:
            _run_shielded(runner, plan, _with_ending(step, outcome, reason[:500], seconds))
        except RollingError as error:
            context.emit(Phase.NOTE, f"the host's history or lock could not be written: {error}", plan.host, step.id)
