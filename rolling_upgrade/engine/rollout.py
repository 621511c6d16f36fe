"""Run an operation over many hosts: locks, the barrier, batches, and the outcome of each host.

An error on one host becomes that host's line in the summary. The work on the other hosts continues.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TypeVar

from rolling_upgrade.engine import executor, lock_file, locking
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.model import Application, HostResult, HostState, HostSummary, Phase, RolloutPolicy
from rolling_upgrade.engine.plan import Change, Plan
from rolling_upgrade.engine.shell import direct
from rolling_upgrade.errors import PROGRAM, HostUnreachable, Interrupted, LockLost, RollingError, UndoFailed, unexpected

R = TypeVar("R")


@dataclass(frozen=True)
class HostRun:
    """One host of a run: its connection, application, observed state and plan."""

    host: Host
    application: Application
    state: HostState
    plan: Plan

    @property
    def name(self) -> str:
        """The name of the host in the inventory."""
        return self.host.name


@dataclass(frozen=True)
class HostOutcome:
    """The outcome of a run on one host: its summary line, and the error if there was one."""

    summary: HostSummary
    error: RollingError | None = None

    @property
    def result(self) -> HostResult | LockLost:
        """The result that determines the exit code of the run: a lost lock takes precedence over the summary's."""
        return self.error if isinstance(self.error, LockLost) else self.summary.result


def roll_out(
    host_runs: Sequence[HostRun],
    replan: Callable[[HostState], Plan],
    rollout: RolloutPolicy,
    context: RunContext,
    on_locked: Callable[[Sequence[HostRun]], None] = lambda _: None,
) -> list[HostOutcome]:
    """Lock all hosts, prepare all hosts, then upgrade batch after batch until one fails.

    Args:
        host_runs: the hosts with their plans.
        replan: makes a new plan from the state of a host that changed between its observation and its lock.
        rollout: the batch size and the number of parallel connections.
        context: the state shared by all steps.
        on_locked: receives the hosts with something to change, after all hosts are locked.

    Raises:
        LockHeld, PreflightError: before anything was changed. From then on every host has an outcome.
    """
    phases = _Rollout(replan, rollout, context)
    locked = phases.lock_all([host_run for host_run in host_runs if not host_run.plan.empty])
    unchanged = [_outcome(host_run, HostResult.UNCHANGED, 0) for host_run in host_runs if host_run.plan.empty]
    on_locked([host_run for host_run in locked if not host_run.plan.empty])
    prepared, failed = phases.prepare_all(locked)
    if failed:
        return [*unchanged, *failed, *(phases.not_started(host_run) for host_run in prepared)]
    return [*unchanged, *phases.upgrade(prepared)]


class _Rollout:
    """The phases of one run."""

    def __init__(
        self,
        replan: Callable[[HostState], Plan],
        rollout: RolloutPolicy,
        context: RunContext,
    ) -> None:
        self._replan, self._rollout, self._context = replan, rollout, context

    def lock_all(self, host_runs: list[HostRun]) -> list[HostRun]:
        """Lock the first host alone, then the rest, so that one of several simultaneous runs gets all its locks."""

        def lock_each(group: Sequence[HostRun]) -> list[HostRun | RollingError]:
            results = self._each(group, self._lock_one, lambda _, error: error)
            if self._context.cancelled.is_set():
                results.append(Interrupted("interrupted before anything was changed."))
            return results

        return locking.acquire_all(
            host_runs, lock_each, lambda host_run: executor.unlock(host_run.host, host_run.plan, self._context)
        )

    def _lock_one(self, host_run: HostRun) -> HostRun | RollingError:
        self._context.emit(Phase.STARTED, "acquire the lock", host_run.name, "lock")
        began = self._context.clock()
        try:
            locked = self._acquire(host_run)
        except RollingError as error:
            self._context.emit(Phase.FAILED, "acquire the lock", host_run.name, "lock", 0, error.message)
            if not isinstance(error, HostUnreachable) and not locking.is_held_by_other(error):
                executor.unlock(host_run.host, host_run.plan, self._context)
            return error
        self._context.emit(Phase.DONE, "acquire the lock", host_run.name, "lock", self._context.clock() - began)
        return locked

    def _acquire(self, host_run: HostRun) -> HostRun:
        [acquire] = host_run.plan.acquire
        acquired = locking.acquire(host_run.host, acquire, environment=host_run.plan.environment)
        if acquired.previous is not None:
            title = f"took over the lock of {locking.describe(acquired.previous)}: its run is dead or its lease expired"
            self._context.emit(Phase.NOTE, title, host_run.name)
        now = acquired.state(host_run.application, host_run.name)
        if locking.plan_still_fits(host_run.state, now):
            return host_run
        self._context.emit(Phase.NOTE, "the host changed after it was observed; a new plan was made", host_run.name)
        return replace(host_run, state=now, plan=self._replan(now))

    def prepare_all(self, host_runs: list[HostRun]) -> tuple[list[HostRun], list[HostOutcome]]:
        """The barrier: prepare every host before any host continues."""
        self._waits = len(host_runs) > 1
        results = self._each(host_runs, self._prepare_one, self._abandon)
        ready = [result for result in results if isinstance(result, HostRun)]
        return ready, [result for result in results if isinstance(result, HostOutcome)]

    def _prepare_one(self, host_run: HostRun) -> HostRun | HostOutcome:
        try:
            longest = sum(step.timeout_seconds for step in host_run.plan.prepare) if self._waits else 0
            patient = replace(self._context, lease_seconds=self._context.lease_seconds + longest)
            executor.prepare(host_run.host, host_run.plan, patient)
        except RollingError as error:
            return self._abandon(host_run, error)
        return host_run

    def _abandon(self, host_run: HostRun, error: RollingError) -> HostOutcome:
        """End the run on a host before any change that visitors could see."""
        if isinstance(error, LockLost | HostUnreachable):
            return _outcome(host_run, HostResult.UNKNOWN, 0, error)
        try:
            executor.undo(host_run.host, host_run.plan, [], self._context, error, self._context.clock())
        except UndoFailed as failure:
            return _outcome(host_run, HostResult.UNDO_FAILED, 0, failure)
        return _outcome(host_run, HostResult.UNDONE, 0, error)

    def not_started(self, host_run: HostRun) -> HostOutcome:
        """Release the lock of a host that was not started because another host failed."""
        executor.unlock(host_run.host, host_run.plan, self._context)
        return _outcome(host_run, HostResult.NOT_STARTED, 0)

    def upgrade(self, host_runs: list[HostRun]) -> list[HostOutcome]:
        """Upgrade batch after batch; after a batch with a failure, leave the remaining hosts unchanged."""
        by_name = {host_run.name: host_run for host_run in host_runs}
        outcomes: list[HostOutcome] = []
        stopped = False
        batches = split_batches(list(by_name), self._rollout.batch)
        for number, batch in enumerate(batches):
            group = [by_name[name] for name in batch]
            if stopped or self._context.cancelled.is_set():
                outcomes += [self.not_started(host_run) for host_run in group]
                continue
            waiting = [by_name[name] for later in batches[number + 1 :] for name in later]
            self._renew_locks(waiting, max((host_run.plan.longest_seconds for host_run in group), default=0))
            results = self._each(
                group, self._upgrade_one, lambda host_run, error: _outcome(host_run, HostResult.UNKNOWN, 0, error)
            )
            outcomes += results
            stopped = any(outcome.error for outcome in results)
        return outcomes

    def _renew_locks(self, waiting: list[HostRun], seconds: float) -> None:
        """Renew the locks of the hosts in later batches."""

        def renew(host_run: HostRun) -> None:
            text = lock_file.renew(
                host_run.plan.home, self._context.run_id, lease_seconds=seconds + self._rollout.lease_seconds
            )
            try:
                host_run.host.run(direct(text), timeout_seconds=30)
            except RollingError as error:
                self._context.emit(Phase.NOTE, f"its lock could not be renewed: {error.message}", host_run.name)

        self._each(waiting, renew, lambda _, __: None)

    def _upgrade_one(self, host_run: HostRun) -> HostOutcome:
        began = self._context.clock()
        if host_run.plan.empty:
            return self.unchanged(host_run)
        try:
            executor.apply(host_run.host, host_run.plan, self._context)
        except UndoFailed as error:
            return _outcome(host_run, HostResult.UNDO_FAILED, self._context.clock() - began, error)
        except (LockLost, HostUnreachable) as error:
            return _outcome(host_run, HostResult.UNKNOWN, self._context.clock() - began, error)
        except RollingError as error:
            undone = any(step.undo is not None for step in host_run.plan.steps)
            result = HostResult.UNDONE if undone else HostResult.NOT_STARTED
            return _outcome(host_run, result, self._context.clock() - began, error)
        return self._finish_one(host_run, self._context.clock() - began)

    def _finish_one(self, host_run: HostRun, seconds: float) -> HostOutcome:
        """Finalize a host that serves the new release. A failure does not undo the release."""
        try:
            executor.finalize(host_run.host, host_run.plan, self._context, seconds)
        except RollingError as error:
            return _outcome(host_run, HostResult.UNKNOWN, seconds, error)
        self._context.emit(Phase.DONE, host_run.plan.result.value, host_run.name, seconds=seconds)
        return _outcome(host_run, host_run.plan.result, seconds)

    def unchanged(self, host_run: HostRun) -> HostOutcome:
        """Release the lock of a host that is already in the desired state."""
        executor.unlock(host_run.host, host_run.plan, self._context)
        return _outcome(host_run, HostResult.UNCHANGED, 0)

    def _each(
        self, host_runs: Sequence[HostRun], do: Callable[[HostRun], R], on_defect: Callable[[HostRun, RollingError], R]
    ) -> list[R]:
        """Work on all hosts in parallel. Ctrl-C cancels the run, which undoes the steps.

        `on_defect` returns the result of a host after an unexpected error, which must not end the run on the others.
        """

        def work_on(host_run: HostRun) -> R:
            try:
                return do(host_run)
            except Exception as error:  # noqa: BLE001 - a defect in the work on one host must not end the others
                next_step = f"{PROGRAM} status shows the state of the host; the same command resumes from it"
                return on_defect(host_run, unexpected(host_run.name, error, RollingError, next_step=next_step))

        if not host_runs:
            return []
        with ThreadPoolExecutor(max_workers=max(1, self._rollout.parallel)) as pool:
            futures = [pool.submit(work_on, host_run) for host_run in host_runs]
            wait_for_all(futures, self._context)
            return [future.result() for future in futures]


def wait_for_all(futures: Sequence[Future[R]], context: RunContext) -> None:
    """Wait for all futures. The first Ctrl-C cancels the run; later ones only report that the undo is running."""
    pending = set(futures)
    while pending:
        try:
            _, pending = wait(pending, timeout=0.2)
        except KeyboardInterrupt:
            if context.cancelled.is_set():
                context.emit(Phase.NOTE, "already stopping: still undoing the completed steps")
            else:
                context.emit(Phase.NOTE, "stopping: undoing the completed steps first")
                context.cancelled.set()


def _outcome(host_run: HostRun, result: HostResult, seconds: float, error: RollingError | None = None) -> HostOutcome:
    done = result in HostResult.changed()
    images = tuple(
        (
            choice.service,
            (choice.wanted if done or choice.change is Change.KEEP else choice.current or choice.wanted).reference,
        )
        for choice in host_run.plan.services
    )
    summary = HostSummary(host_run.name, result, seconds, images, error.message if error else "")
    return HostOutcome(summary, error)


def batch_size(batch: str, hosts: int) -> int:
    """The number of hosts in a batch of `N` or `P%`: at least one; percentages round up. Raises ValueError."""
    text = batch.strip()
    number = text.removesuffix("%")
    if not (number.isascii() and number.isdigit()) or int(number) == 0:
        raise ValueError(f"{batch!r} is neither a number of hosts nor a percentage above 0")
    return max(1, math.ceil(hosts * int(number) / 100)) if text.endswith("%") else int(number)


def split_batches(names: Sequence[str], batch: str) -> tuple[tuple[str, ...], ...]:
    """Split the names into batches, in order. Raises ValueError."""
    if not names:
        return ()
    step = batch_size(batch, len(names))
    return tuple(tuple(names[start : start + step]) for start in range(0, len(names), step))
