"""One plan on one host: steps as stages, the undo when one fails, and what to do when the connection drops.

It decides no step. Every mutating script runs as a stage (see commands/journal.py): a lost connection leaves the stage
running, and is answered by attaching to it again, never by guessing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from threading import Event as Flag

from fabfile.commands import journal, lock
from fabfile.commands.shell import Script, script
from fabfile.errors import (
    ConnectionDropped,
    HostUnreachable,
    Interrupted,
    LockLost,
    RollingError,
    StepFailed,
    UndoFailed,
)
from fabfile.model import Event, Outcome, Phase
from fabfile.plans import closing
from fabfile.plans.step import Plan, Step
from fabfile.remote.host import Answer, Cancelled, Host

#: How long a lost host is tried again before its outcome counts as unknown.
RECONNECT_SECONDS = 60.0
#: What an answer may take on top of a stage's own deadline: waiting for another stage, starting, reading the log.
GRACE_SECONDS = journal.WAIT_SECONDS + 60.0


@dataclass(frozen=True)
class Run:
    """What the steps of a run share. `clock` gives Unix seconds; `cancelled` is set by Ctrl-C.

    `offer` lets a host fetch the images of a step from this workstation, and gives what the step's script needs first.
    """

    release: str
    lease_seconds: float
    tell: Callable[[Event], None]
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    cancelled: Flag = field(default_factory=Flag)
    offer: Callable[[Host, Step], AbstractContextManager[Script]] | None = None

    def say(
        self, phase: Phase, title: str, host: str = "", step: str = "", seconds: float = 0, detail: str = ""
    ) -> None:
        """Tell the reporter what happened just now."""
        self.tell(Event(self.clock(), phase, title, host, step, seconds, detail))


def run_step(host: Host, plan: Plan, step: Step, run: Run, *, shielded: bool = False) -> Answer:
    """Run one step to its end. Raises StepFailed, LockLost, Interrupted (unless shielded) or HostUnreachable."""
    cancelled = None if shielded else run.cancelled
    if cancelled is not None and cancelled.is_set():
        raise Interrupted(f"{host.name}: interrupted before: {step.title}.")
    run.say(Phase.STARTED, step.title, host.name, step.id)
    began = run.clock()
    try:
        answer = _run_stage(host, plan, step, run, cancelled)
        _judge(host, step, answer)
    except Cancelled:
        raise Interrupted(f"{host.name}: interrupted during: {step.title}.") from None
    except RollingError as error:
        run.say(Phase.FAILED, step.title, host.name, step.id, run.clock() - began, error.message)
        raise
    run.say(Phase.DONE, step.title, host.name, step.id, run.clock() - began, answer.output.strip())
    return answer


def _run_stage(host: Host, plan: Plan, step: Step, run: Run, cancelled: Flag | None) -> Answer:
    seconds = step.timeout_seconds
    stage = journal.stage(
        plan.home,
        run.release,
        step.id,
        run.release,
        step.script,
        seconds=seconds,
        lease_seconds=run.lease_seconds,
    )
    try:
        return host.run(stage, timeout_seconds=seconds + GRACE_SECONDS, cancelled=cancelled)
    except ConnectionDropped as dropped:
        run.say(Phase.NOTE, f"{dropped.message} Connecting again.", host.name, step.id)
    answer = _attach(host, plan, step, run, cancelled)
    if answer.status == journal.NEVER_BEGAN_STATUS:
        answer = host.run(stage, timeout_seconds=seconds + GRACE_SECONDS, cancelled=cancelled)
    return answer


def _attach(host: Host, plan: Plan, step: Step, run: Run, cancelled: Flag | None) -> Answer:
    """Find out how the stage of a dropped connection ended, trying the host for a minute."""
    script = journal.attach(plan.home, run.release, step.id, seconds=step.timeout_seconds + GRACE_SECONDS)
    return _patiently(host, script, step.timeout_seconds + 2 * GRACE_SECONDS, run, cancelled, step.title)


def _patiently(host: Host, script: Script, seconds: float, run: Run, cancelled: Flag | None, title: str) -> Answer:
    """Run a script that is safe to repeat, trying a lost host for a minute. Raises HostUnreachable."""
    began = run.clock()
    while True:
        try:
            return host.run(script, timeout_seconds=seconds, cancelled=cancelled)
        except (ConnectionDropped, HostUnreachable) as error:
            if run.clock() - began > RECONNECT_SECONDS:
                raise HostUnreachable(
                    f"{host.name}: lost during: {title}; what it did last is unknown.",
                    next_step="run the same command again once the host answers: it goes on from what is there",
                ) from error
            run.sleep(1.0)


def _judge(host: Host, step: Step, answer: Answer) -> None:
    if answer.ok:
        return
    if answer.status == lock.LOST_STATUS:
        raise LockLost(
            f"{host.name}: another run took the lock over; nothing more is done here.\n{answer.last_words}",
            next_step="see what the other run did with inv status, then decide",
        )
    reasons = {
        journal.BUSY_STATUS: "another stage is still running on the host",
        journal.TIMED_OUT_STATUS: f"no end within {step.timeout_seconds:g} s",
        journal.DIED_STATUS: "the stage was killed on the host",
    }
    words = "\n".join(part for part in (reasons.get(answer.status, ""), answer.last_words) if part)
    raise StepFailed(f"{host.name}: {step.title}: failed (status {answer.status}).\n{words}".rstrip())


def prepare(host: Host, plan: Plan, run: Run) -> None:
    """Run the steps that change nothing a visitor sees."""
    for step in plan.prepare:
        if not step.pushes or run.offer is None:
            run_step(host, plan, step, run)
            continue
        with run.offer(host, step) as prologue:
            run_step(host, plan, replace(step, script=script(prologue, step.script)), run)


def apply(host: Host, plan: Plan, run: Run) -> None:
    """Run the steps; when one fails, undo what was done and raise its error (UndoFailed when the undo fails too)."""
    begun: list[Step] = []
    since = run.clock()
    try:
        for step in plan.steps:
            if run.cancelled.is_set():
                raise Interrupted(f"{host.name}: interrupted before: {step.title}.")
            begun.append(step)
            run_step(host, plan, step, run)
    except (LockLost, HostUnreachable):
        raise
    except RollingError as error:
        undo(host, plan, begun, run, error, since)
        raise


def finish(host: Host, plan: Plan, run: Run, seconds: float) -> None:
    """End what no longer serves, record the release as good, free the host; Ctrl-C does not stop it any more."""
    for step in plan.finish[:-1]:
        run_step(host, plan, step, run, shielded=True)
    run_step(host, plan, closing.finish(plan, seconds), run, shielded=True)


def undo(host: Host, plan: Plan, begun: list[Step], run: Run, cause: RollingError, since: float) -> None:
    """Reverse the steps that were begun, mark the release as bad, free the host. Raises UndoFailed.

    `since` is when the host's steps began, Unix seconds.
    """
    undone = [step for step in reversed(begun) if step.undo is not None]
    title = "; ".join(step.undo_title for step in undone) or "nothing to reverse"
    run.say(Phase.UNDOING, title, host.name, "undo")
    began = run.clock()
    outcome, failure = Outcome.UNDONE, None
    try:
        _abort(host, plan, run)
        if undone:
            parts = [step.undo for step in undone if step.undo is not None]
            seconds = sum(step.timeout_seconds for step in undone)
            _judge_undo(host, plan, Step("undo", title, journal.undo_all(parts), seconds), run)
    except (RollingError, Cancelled) as error:
        outcome, failure = Outcome.UNDO_FAILED, error
    reason = cause.message.splitlines()[0]
    _abandon(host, plan, run, outcome, reason, run.clock() - since)
    if failure is not None:
        run.say(Phase.FAILED, "undo", host.name, "undo", run.clock() - began, str(failure))
        raise UndoFailed(
            f"{host.name}: {cause.message}\nThe undo failed as well: {failure}",
            next_step=f"inv status --env {plan.environment} --hosts {host.name}; "
            f"what ran is in {plan.home}/journal/{run.release} on the host",
        ) from failure
    run.say(Phase.UNDONE, title, host.name, "undo", run.clock() - began)


def _abort(host: Host, plan: Plan, run: Run) -> None:
    """End the stage that may still run on the host: an interrupted or dropped one."""
    script = journal.direct(journal.abort(plan.home, run.release))
    answer = _patiently(host, script, 30, run, None, "ending the running stage")
    if not answer.ok:
        raise StepFailed(f"{host.name}: the running stage could not be ended.\n{answer.last_words}")


def _judge_undo(host: Host, plan: Plan, step: Step, run: Run) -> None:
    answer = _run_stage(host, plan, step, run, None)
    _judge(host, step, answer)


def _abandon(host: Host, plan: Plan, run: Run, outcome: Outcome, reason: str, seconds: float) -> None:
    step = closing.abandon(plan, outcome, reason, seconds)
    try:
        _judge_undo(host, plan, step, run)
    except RollingError as error:
        run.say(Phase.NOTE, f"the host's history or lock could not be written: {error}", host.name, step.id)


def unlock(host: Host, plan: Plan, run: Run) -> None:
    """Free a host on which nothing was done yet; never raises, a lease ends by itself."""
    try:
        answer = host.run(journal.direct(lock.release(plan.home, run.release)), timeout_seconds=30)
        if not answer.ok:
            run.say(
                Phase.NOTE, f"the lock could not be freed, its lease ends by itself: {answer.last_words}", host.name
            )
    except RollingError as error:
        run.say(Phase.NOTE, f"the lock could not be freed, its lease ends by itself: {error}", host.name)
