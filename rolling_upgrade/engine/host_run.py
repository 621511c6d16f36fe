"""A run on its host: take the lock, compare, prepare, wait for `go`, execute or undo, record.

The workstation sends a `RunDocument` and control words, and gets events and a `RunEnd`. Before `go`, a host that hears
nothing from its workstation for the time of the lease ends the run and releases the lock; visitors have noticed
nothing. After `go` it needs nobody.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from rolling_upgrade.engine import executor, history, lock_file, locking
from rolling_upgrade.engine.executor import RunContext, StepRunner
from rolling_upgrade.engine.host import Cancelled, Host, LocalHost
from rolling_upgrade.engine.journal import END, GO, PREPARE, RELEASE, Journal, Words
from rolling_upgrade.engine.model import Channels, Event, HostResult, Notice, Phase
from rolling_upgrade.engine.plan import Plan, Step
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.engine.shell import direct
from rolling_upgrade.engine.step_process import StepProcess
from rolling_upgrade.errors import (
    PROGRAM,
    ConnectionDropped,
    HostUnreachable,
    Interrupted,
    LockHeld,
    LockLost,
    PreflightError,
    RollingError,
    StepFailed,
    StepRunning,
    UndoFailed,
)

#: The states that a run reaches before its end: it holds the lock; it is prepared, and waits for a word; its release
#: command has started; that has succeeded.
LOCKED, PREPARED, RELEASING, RELEASED = "locked", "prepared", "releasing", "released"
#: How long the workstation may take to show that it has received the end of a run: longer than it reconnects.
SEEN_SECONDS = 75.0
#: The bytes of the host's history that may have the release of a killed run.
_HISTORY_BYTES = 1 << 20


@dataclass(frozen=True)
class RunDocument:
    """Everything that a host needs for a run.

    Attributes:
        plan: what to do.
        basis: the basis of the state that the plan was made from, see `locking.basis`; '' to accept any state.
        app: the application's name.
        lease_seconds: how long the lock outlasts each step, and how long the host waits for its workstation.
        attempt: counts the plans of one run: the host may change between its observation and its lock.
        notice: the message about the end of the run, without the outcome; the host sends it if its workstation is gone.
        channels: the channels of that message.
        secrets: the texts to mask in that message, beside those of the channels.
        seen_seconds: how long the host waits for `seen` before it sends that message.
    """

    plan: Plan
    basis: str
    app: str
    lease_seconds: float
    attempt: int = 1
    notice: Notice | None = None
    channels: Channels = field(default=Channels(), repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    seen_seconds: float = SEEN_SECONDS


@dataclass(frozen=True)
class RunEnd:
    """How a run ended on its host.

    Attributes:
        result: the state of the host.
        seconds: the duration of the steps.
        error: the class of the error, '' without one.
        message: the message of the error.
        next_step: the next step of the error.
        observation: the answer of the observation, if the plan no longer fits the host; nothing was changed then.
    """

    result: HostResult
    seconds: float = 0.0
    error: str = ""
    message: str = ""
    next_step: str = ""
    observation: str = ""

    @property
    def raised(self) -> RollingError | None:
        """The error that ended the run."""
        if not self.error:
            return None
        return _ERRORS.get(self.error, RollingError)(self.message, next_step=self.next_step)


_ERRORS: Mapping[str, type[RollingError]] = {
    kind.__name__: kind
    for kind in (
        *(RollingError, PreflightError, HostUnreachable, LockHeld, StepRunning, LockLost, StepFailed),
        *(ConnectionDropped, UndoFailed, Interrupted),
    )
}


class Runner(StepRunner, Protocol):
    """Runs steps, and extends the lease of the lock that they need."""

    def renew(self, seconds: float = 0.0) -> str:
        """Extend the lease; return '', or a text that names the holder that took the lock over."""


@dataclass(frozen=True)
class RunExecutor:
    """The executor of one run on this host.

    Attributes:
        document: what the workstation sent.
        host: this machine.
        runner: runs the steps.
        words: the control words.
        context: the run's id, lease and events; its `cancelled` is that of the words.
        announce: reports a state that the run has reached.
    """

    document: RunDocument
    host: Host
    runner: Runner
    words: Words
    context: RunContext
    announce: Callable[[str], None]

    def execute(self) -> RunEnd:
        """Run the plan, and return how that ended; every error is part of the result."""
        try:
            if (refused := self._lock()) is not None:
                return refused
            self.announce(LOCKED)
            return self._prepare() or self._release() or self._wait_for_go() or self._change()
        except Exception as error:  # noqa: BLE001 - a defect must end the run with a result
            return _end(HostResult.UNKNOWN, executor.as_rolling_error(self.document.plan, error))

    def resume(self, reached: Collection[str], started: Collection[str], done: Collection[str]) -> RunEnd:
        """End a run whose executor was killed: finish it if all its steps are done, else undo the started ones.

        Args:
            reached: the states that the run announced.
            started: the ids of the steps that it started.
            done: the ids of the steps that it completed, `undo` included.
        """
        plan = self.document.plan
        cause = StepFailed(f"{plan.host}: the run was killed on the host.")
        if not plan.is_locked:
            rest = tuple(step for step in plan.steps if step.id not in done)
            return replace(self, document=replace(self.document, plan=replace(plan, steps=rest))).execute()
        try:
            if LOCKED not in reached:
                self._unlock()
                return _end(HostResult.NOT_STARTED, cause)
            if "undo" in done:
                self._unlock()
                return _end(HostResult.UNDONE, cause)
            if plan.finalize and plan.finalize[-1].id in done:
                return RunEnd(plan.result)
            if lost := self.runner.renew():
                if self._is_recorded():
                    # The last step also cleans up, after it has released the lock.
                    self.context.emit(Phase.DONE, plan.result.value, plan.host)
                    return RunEnd(plan.result)
                return _end(HostResult.UNKNOWN, self._lost(lost))
            if plan.steps and all(step.id in done for step in plan.steps):
                return self._finalize(0.0)
            self._undo([step for step in (*plan.release, *plan.steps) if step.id in started], cause)
        except UndoFailed as error:
            return _end(HostResult.UNDO_FAILED, error)
        except RollingError as error:
            return _end(HostResult.UNKNOWN, error)
        return _end(HostResult.UNDONE, cause)

    def _is_recorded(self) -> bool:
        """Whether the newest part of the host's history has the release of this run as good."""
        try:
            with Path(history.history_file(self.document.plan.home)).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _HISTORY_BYTES))
                releases = history.parse(file.read().decode(errors="replace"))
        except (OSError, ValueError):
            return False
        return any(release.id == self.document.plan.run_id and release.good for release in releases)

    def _lock(self) -> RunEnd | None:
        """Acquire the lock and observe the host. Return the end of a run that cannot continue."""
        plan, title = self.document.plan, "acquire the lock"
        if not plan.is_locked:
            return None
        [step] = plan.acquire
        self.context.emit(Phase.STARTED, title, plan.host, step.id)
        began = self.context.clock()
        try:
            cancelled = self.words.cancelled
            acquired = locking.acquire(self.host, step, environment=plan.environment, cancelled=cancelled)
            observed = acquired.state(self.document.app, plan.host)
        except Cancelled:
            self._unlock()
            return RunEnd(HostResult.NOT_STARTED)
        except RollingError as error:
            self.context.emit(Phase.FAILED, title, plan.host, step.id, 0, error.message)
            if not locking.is_held_by_other(error):
                self._unlock()
            return _end(HostResult.NOT_STARTED, error)
        if acquired.previous is not None:
            holder = locking.describe(acquired.previous)
            note = f"took over the lock of {holder}: its run is dead or its lease expired"
            self.context.emit(Phase.NOTE, note, plan.host)
        if self.document.basis not in {"", locking.basis(observed)}:
            # If the host changed because another run took the lock over, this run must not plan again.
            if lost := self.runner.renew():
                return _end(HostResult.UNKNOWN, self._lost(lost))
            self._unlock()
            return RunEnd(HostResult.NOT_STARTED, observation=acquired.answer.output)
        self.context.emit(Phase.DONE, title, plan.host, step.id, self.context.clock() - began)
        return None

    def _prepare(self) -> RunEnd | None:
        """Prepare the host. Return the end of a run that may not continue."""
        if not self._wait_for(PREPARE) or self.words.cancelled.is_set():
            return self._not_started()
        try:
            executor.prepare(self.runner, self.document.plan, self.context)
        except LockLost as error:
            return _end(HostResult.UNKNOWN, error)
        except Interrupted:
            return self._not_started()
        except Exception as error:  # noqa: BLE001 - a defect ends the run like a failed step
            return self._end_preparation(executor.as_rolling_error(self.document.plan, error))
        self.announce(PREPARED)
        return None

    def _release(self) -> RunEnd | None:
        """Run the release command if this is the host that the workstation chose. Return the end of a run that failed."""
        plan = self.document.plan
        if not plan.release:
            return None
        if not self._wait_for(RELEASE) or self.words.cancelled.is_set():
            return self._not_started()
        if not self.words.has(RELEASE):
            return None
        self.announce(RELEASING)
        if (end := self._apply(replace(plan, steps=plan.release), self.context.clock())) is not None:
            return end
        self.announce(RELEASED)
        return None

    def _wait_for_go(self) -> RunEnd | None:
        return None if self._wait_for(GO) else self._not_started()

    def _wait_for(self, word: str) -> bool:
        """Wait for a word, or for `go`, and keep the lock while the workstation shows that it is there."""
        return self.words.wait_for(word, self.document.lease_seconds, lambda: not self.runner.renew())

    def _not_started(self) -> RunEnd:
        """End the run before it changed anything that visitors could see."""
        plan = self.document.plan
        lost = self.runner.renew()
        self._unlock()
        if lost:
            return _end(HostResult.UNKNOWN, self._lost(lost))
        if self.words.cancelled.is_set():
            return RunEnd(HostResult.NOT_STARTED)
        seconds = self.document.lease_seconds
        changed = "only its release command has run" if self.words.has(RELEASE) else "nothing was changed"
        message = f"{plan.host}: no word from the workstation for {seconds:g} s; the run ended, {changed}."
        return _end(HostResult.NOT_STARTED, StepFailed(message))

    def _end_preparation(self, error: RollingError) -> RunEnd:
        """Record the failed preparation and release the lock; a preparation has nothing to undo."""
        self._undo([], error)
        return _end(HostResult.UNDONE, error)

    def _undo(self, started: list[Step], cause: RollingError) -> None:
        executor.undo(self.runner, self.document.plan, started, self.context, cause, self.context.clock())

    def _change(self) -> RunEnd:
        """Run the steps, and finalize or undo them."""
        began = self.context.clock()
        return self._apply(self.document.plan, began) or self._finalize(self.context.clock() - began)

    def _apply(self, plan: Plan, began: float) -> RunEnd | None:
        """Run the steps of a plan. Return the end of a run that failed, with its steps undone."""
        try:
            executor.apply(self.runner, plan, self.context)
        except UndoFailed as error:
            return self._ended(HostResult.UNDO_FAILED, began, error)
        except LockLost as error:
            return self._ended(HostResult.UNKNOWN, began, error)
        except RollingError as error:
            if not plan.is_locked:
                return self._ended(HostResult.UNKNOWN, began, error)
            undone = any(step.undo is not None for step in plan.steps)
            return self._ended(HostResult.UNDONE if undone else HostResult.NOT_STARTED, began, error)
        return None

    def _finalize(self, seconds: float) -> RunEnd:
        """Record the release. A failure does not undo it."""
        plan = self.document.plan
        try:
            executor.finalize(self.runner, plan, self.context, seconds)
        except RollingError as error:
            return _end(HostResult.UNKNOWN, error, seconds)
        self.context.emit(Phase.DONE, plan.result.value, plan.host, seconds=seconds)
        return RunEnd(plan.result, seconds)

    def _ended(self, result: HostResult, began: float, error: RollingError) -> RunEnd:
        return _end(result, error, self.context.clock() - began)

    def _lost(self, holder: str) -> LockLost:
        return LockLost(
            f"{self.document.plan.host}: another run took over the lock; this run stops here.\n{holder}",
            next_step=f"{PROGRAM} status shows what the other run did",
        )

    def _unlock(self) -> None:
        """Release the lock. A failure is only reported, because the lease expires."""
        plan = self.document.plan
        failure: object = ""
        try:
            answer = self.host.run(direct(lock_file.release(plan.home, plan.run_id)), timeout_seconds=30)
            if not answer.ok:
                failure = answer.output_tail or f"status {answer.status}"
        except Exception as error:  # noqa: BLE001 - a defect here must not hide how the run ended
            failure = error
        if failure:
            note = f"the lock could not be released; its lease will expire: {failure}"
            self.context.emit(Phase.NOTE, note, plan.host)


def _end(result: HostResult, error: RollingError, seconds: float = 0.0) -> RunEnd:
    return RunEnd(result, seconds, type(error).__name__, error.message, error.next_step)


def end_without_plan(journal: Journal) -> RunEnd:
    """Return the end of a run whose plan is missing or damaged, such as one that was killed after it deleted its plan."""
    host = os.uname().nodename
    if journal.has_begun:
        return _end(HostResult.UNKNOWN, StepFailed(f"{host}: the run was killed on the host, and its plan is gone."))
    reason = "its plan is missing or damaged"
    return _end(
        HostResult.NOT_STARTED, PreflightError(f"{host}: the run could not start; nothing was touched: {reason}")
    )


def execute(
    document: RunDocument, journal: Journal, words: Words, on_event: Callable[[Event], None] = lambda _: None
) -> RunEnd:
    """Execute a run on this machine, or end one whose executor was killed. Its journal gets all events."""
    plan = document.plan
    runner = StepProcess(journal.home, plan.run_id, document.lease_seconds, is_locked=plan.is_locked)

    def report(event: Event) -> None:
        journal.append({"event": to_plain(event)})
        on_event(event)

    def announce(state: str) -> None:
        journal.append({"state": state})
        if state == LOCKED:
            journal.delete_plans_of_dead_runs()

    context = RunContext(plan.run_id, document.lease_seconds, report, cancelled=words.cancelled)
    run = RunExecutor(document, LocalHost(plan.host), runner, words, context, announce)
    with nullcontext(True) if plan.is_locked else _alone(journal.home / "lock/run") as is_alone:
        if not is_alone:
            refusal = f"{plan.host}: another run prepares the host; nothing was touched"
            end = _end(HostResult.NOT_STARTED, LockHeld(refusal, next_step="wait until it ends"))
        elif journal.has_begun:
            runner.end_leftovers()
            end = run.resume(**_progress(journal.messages()))
        else:
            end = run.execute()
        # Before the last line: after it, the workstation may write another plan.
        journal.delete_plan()
        journal.append({END: to_plain(end)})
    return end


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Lock a file during the block; yield False if another process has locked it."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _progress(messages: Sequence[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Return the states, started steps and completed steps of a run, from the events in its journal."""
    events = [event for message in messages if isinstance(event := message.get("event"), dict)]
    ended = {Phase.DONE.value, Phase.UNDONE.value}
    return {
        "reached": {str(message["state"]) for message in messages if "state" in message},
        "started": {str(event.get("step")) for event in events if event.get("phase") == Phase.STARTED.value},
        "done": {str(event.get("step")) for event in events if event.get("phase") in ended},
    }
