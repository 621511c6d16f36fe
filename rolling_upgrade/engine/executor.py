"""Execute one plan on one host: run its steps, undo them when one fails, survive a dropped connection.

Every script that changes the host runs as a stage (see engine/detached.py). A stage survives a dropped connection,
and the executor attaches to it again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from rolling_upgrade.engine import detached, history, lock_file
from rolling_upgrade.engine.host import Answer, Cancelled, Host
from rolling_upgrade.engine.model import Event, Outcome, Phase
from rolling_upgrade.engine.plan import Plan, Step
from rolling_upgrade.engine.shell import Script, direct, script
from rolling_upgrade.errors import (
    PROGRAM,
    ConnectionDropped,
    HostUnreachable,
    Interrupted,
    LockLost,
    RollingError,
    StepFailed,
    UndoFailed,
)

#: How long the executor reconnects to a lost host before the outcome counts as unknown.
RECONNECT_SECONDS = 60.0
#: The time for an answer beyond a stage's own deadline: waiting for another stage, starting, reading the log.
GRACE_SECONDS = detached.WAIT_SECONDS + 60.0


@dataclass(frozen=True)
class RunContext:
    """State shared by all steps of a run.

    Attributes:
        run_id: the id of the run and of its release, and the token of its locks.
        lease_seconds: how long a host's lock outlasts each stage.
        on_event: receives every event.
        clock: gives Unix seconds.
        cancelled: set by Ctrl-C.
        offer: serves the images of a step to its host while the context is open, and returns the shell text that
            comes before the step's script.
    """

    run_id: str
    lease_seconds: float
    on_event: Callable[[Event], None]
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    cancelled: threading.Event = field(default_factory=threading.Event)
    offer: Callable[[Host, Step], AbstractContextManager[Script]] | None = None

    def emit(
        self, phase: Phase, title: str, host: str = "", step: str = "", seconds: float = 0, detail: str = ""
    ) -> None:
        """Report an event that happens now."""
        self.on_event(Event(self.clock(), phase, title, host, step, seconds, detail))


def run_step(host: Host, plan: Plan, step: Step, context: RunContext, *, shielded: bool = False) -> Answer:
    """Run one step to its end.

    Raises:
        StepFailed: the step failed on the host.
        LockLost: another run took the lock over.
        Interrupted: Ctrl-C, unless the step is shielded from it.
        HostUnreachable: the host stayed unreachable; the outcome of the step is unknown.
    """
    cancelled = None if shielded else context.cancelled
    if cancelled is not None and cancelled.is_set():
        raise Interrupted(f"{host.name}: interrupted before: {step.title}.")
    context.emit(Phase.STARTED, step.title, host.name, step.id)
    began = context.clock()
    try:
        answer = _run_stage(host, plan, step, context, cancelled)
        _check_answer(host, step, answer)
    except Cancelled:
        raise Interrupted(f"{host.name}: interrupted during: {step.title}.") from None
    except RollingError as error:
        context.emit(Phase.FAILED, step.title, host.name, step.id, context.clock() - began, error.message)
        raise
    context.emit(Phase.DONE, step.title, host.name, step.id, context.clock() - began, answer.output.strip())
    return answer


def _run_stage(host: Host, plan: Plan, step: Step, context: RunContext, cancelled: threading.Event | None) -> Answer:
    seconds = step.timeout_seconds
    body = detached.launch(
        plan.home, context.run_id, step.id, step.script, seconds=seconds, lease_seconds=context.lease_seconds
    )
    try:
        return host.run(body, timeout_seconds=seconds + GRACE_SECONDS, cancelled=cancelled)
    except ConnectionDropped as dropped:
        context.emit(Phase.NOTE, f"{dropped.message} Reconnecting.", host.name, step.id)
    answer = _attach(host, plan, step, context, cancelled)
    if answer.status == detached.NEVER_BEGAN_STATUS:
        answer = host.run(body, timeout_seconds=seconds + GRACE_SECONDS, cancelled=cancelled)
    return answer


def _attach(host: Host, plan: Plan, step: Step, context: RunContext, cancelled: threading.Event | None) -> Answer:
    """Wait for the stage of a dropped connection, reconnecting for up to RECONNECT_SECONDS."""
    script = detached.attach(plan.home, context.run_id, step.id, seconds=step.timeout_seconds + GRACE_SECONDS)
    return _run_reconnecting(host, script, step.timeout_seconds + 2 * GRACE_SECONDS, context, cancelled, step.title)


def _run_reconnecting(
    host: Host, script: Script, seconds: float, context: RunContext, cancelled: threading.Event | None, title: str
) -> Answer:
    """Run a repeatable script, reconnecting to a lost host for up to RECONNECT_SECONDS. Raises HostUnreachable."""
    began = context.clock()
    while True:
        try:
            return host.run(script, timeout_seconds=seconds, cancelled=cancelled)
        except (ConnectionDropped, HostUnreachable) as error:
            if context.clock() - began > RECONNECT_SECONDS:
                raise HostUnreachable(
                    f"{host.name}: connection lost during: {title}; the outcome is unknown.",
                    next_step="run the same command again once the host answers; it resumes",
                ) from error
            context.sleep(1.0)


def _check_answer(host: Host, step: Step, answer: Answer) -> None:
    if answer.ok:
        return
    if answer.status == lock_file.LOST_STATUS:
        raise LockLost(
            f"{host.name}: another run took over the lock; this run stops here.\n{answer.output_tail}",
            next_step=f"{PROGRAM} status shows what the other run did",
        )
    reasons = {
        detached.BUSY_STATUS: "another stage is still running on the host",
        detached.TIMED_OUT_STATUS: f"it did not end within {step.timeout_seconds:g} s",
        detached.DIED_STATUS: "the stage was killed on the host",
    }
    details = "\n".join(part for part in (reasons.get(answer.status, ""), answer.output_tail) if part)
    raise StepFailed(f"{host.name}: {step.title}: failed (status {answer.status}).\n{details}".rstrip())


def prepare(host: Host, plan: Plan, context: RunContext) -> None:
    """Run the preparation steps, which have no effect on visitors."""
    for step in plan.prepare:
        if not step.pushes or context.offer is None:
            run_step(host, plan, step, context)
            continue
        with context.offer(host, step) as prologue:
            run_step(host, plan, replace(step, script=script(prologue, step.script)), context)


def apply(host: Host, plan: Plan, context: RunContext) -> None:
    """Run the steps. If one fails, undo the started steps and raise its error, or UndoFailed if the undo fails too."""
    started: list[Step] = []
    started_at = context.clock()
    try:
        for step in plan.steps:
            if context.cancelled.is_set():
                raise Interrupted(f"{host.name}: interrupted before: {step.title}.")
            started.append(step)
            run_step(host, plan, step, context)
    except (LockLost, HostUnreachable):
        raise
    except RollingError as error:
        undo(host, plan, started, context, error, started_at)
        raise


def finalize(host: Host, plan: Plan, context: RunContext, seconds: float) -> None:
    """Run the final steps, which Ctrl-C does not stop; `seconds` is the duration of the plan's steps."""
    reason = plan.record.reason if plan.record else ""
    for step in plan.finalize:
        run_step(host, plan, _with_ending(step, Outcome.GOOD, reason, seconds), context, shielded=True)


def _with_ending(step: Step, outcome: Outcome, reason: str, seconds: float) -> Step:
    """Set the outcome, reason and duration of the history line, which are known only now."""
    return replace(step, script=script(history.ending(outcome, reason, seconds), step.script))


def undo(
    host: Host, plan: Plan, started: list[Step], context: RunContext, cause: RollingError, started_at: float
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
    context.emit(Phase.UNDOING, title, host.name, "undo")
    began = context.clock()
    outcome, failure = Outcome.UNDONE, None
    try:
        _abort(host, plan, context)
        if undone:
            parts = [step.undo for step in undone if step.undo is not None]
            seconds = sum(step.timeout_seconds for step in undone)
            _run_undo(host, plan, Step("undo", title, detached.undo_all(parts), seconds), context)
    except (RollingError, Cancelled) as error:
        outcome, failure = Outcome.UNDO_FAILED, error
    reason = cause.message.splitlines()[0]
    _record_failure(host, plan, context, outcome, reason, context.clock() - started_at)
    if failure is not None:
        context.emit(Phase.FAILED, "undo", host.name, "undo", context.clock() - began, str(failure))
        raise UndoFailed(
            f"{host.name}: {cause.message}\nThe undo failed as well: {failure}",
            next_step=f"{PROGRAM} status --env {plan.environment} --hosts {host.name}; "
            f"the log is in {plan.home}/journal/{context.run_id} on the host",
        ) from failure
    context.emit(Phase.UNDONE, title, host.name, "undo", context.clock() - began)


def _abort(host: Host, plan: Plan, context: RunContext) -> None:
    """End the interrupted or dropped stage that may still run on the host."""
    script = direct(detached.abort(plan.home, context.run_id))
    answer = _run_reconnecting(host, script, 30, context, None, "ending the running stage")
    if not answer.ok:
        raise StepFailed(f"{host.name}: the running stage could not be ended.\n{answer.output_tail}")


def _run_undo(host: Host, plan: Plan, step: Step, context: RunContext) -> None:
    _check_answer(host, step, _run_stage(host, plan, step, context, None))


def _record_failure(host: Host, plan: Plan, context: RunContext, outcome: Outcome, reason: str, seconds: float) -> None:
    for step in plan.abort:
        try:
            _run_undo(host, plan, _with_ending(step, outcome, reason[:500], seconds), context)
        except RollingError as error:
            context.emit(Phase.NOTE, f"the host's history or lock could not be written: {error}", host.name, step.id)


def unlock(host: Host, plan: Plan, context: RunContext) -> None:
    """Release the lock of a host on which no step has started.

    Reports a failure and raises only Cancelled: the lease expires anyway.
    """
    failure: object = ""
    try:
        answer = host.run(direct(lock_file.release(plan.home, context.run_id)), timeout_seconds=30)
        if not answer.ok:
            failure = answer.output_tail or f"status {answer.status}"
    except Cancelled:
        raise
    except Exception as error:  # noqa: BLE001 - a defect in the work on one host must not end the others
        failure = error
    if failure:
        context.emit(Phase.NOTE, f"the lock could not be released; its lease will expire: {failure}", host.name)
