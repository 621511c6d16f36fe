"""Run an operation over many hosts: locks, the barrier, batches, and the outcome of each host.

An error on one host becomes that host's line in the summary. The work on the other hosts continues.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from rolling_upgrade.engine import locking, observation
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.host import StreamingHost
from rolling_upgrade.engine.host_run import LOCKED, PREPARED, RELEASED, RELEASING, RunDocument
from rolling_upgrade.engine.journal import CANCEL, GO, PREPARE, RELEASE
from rolling_upgrade.engine.model import (
    Application,
    Channels,
    HostResult,
    HostState,
    HostSummary,
    Notice,
    Phase,
    RolloutPolicy,
)
from rolling_upgrade.engine.plan import Change, Plan
from rolling_upgrade.engine.remote_run import RemoteRun
from rolling_upgrade.engine.shell import script
from rolling_upgrade.errors import PROGRAM, Interrupted, LockLost, PreflightError, RollingError, unexpected

R = TypeVar("R")
#: How often a run is planned on a host that changes between its observation and its lock.
_MOST_PLANS = 3


class _Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=_Named)


@dataclass(frozen=True)
class HostRun:
    """One host of a run: its connection, application, observed state and plan."""

    host: StreamingHost
    application: Application
    state: HostState
    plan: Plan

    @property
    def name(self) -> str:
        """The name of the host in the inventory."""
        return self.host.name


@dataclass(frozen=True)
class HostOutcome:
    """The outcome of a run on one host: its summary line, and the error if there was one.

    `has_released` tells whether the release command was started on the host.
    """

    summary: HostSummary
    error: RollingError | None = None
    has_released: bool = False

    @property
    def result(self) -> HostResult | LockLost:
        """The result that determines the exit code of the run: a lost lock takes precedence over the summary's."""
        return self.error if isinstance(self.error, LockLost) else self.summary.result


def roll_out(
    host_runs: Sequence[HostRun],
    replan: Callable[[HostState], Plan],
    rollout: RolloutPolicy,
    context: RunContext,
    messages: Messages,
    engine: Callable[[], bytes],
) -> list[HostOutcome]:
    """Lock all hosts, prepare all hosts, then upgrade batch after batch until one fails.

    Each host executes its plan by itself; this function decides when it may continue.

    Args:
        host_runs: the hosts with their plans.
        replan: makes a new plan from the state of a host that changed between its observation and its lock.
        rollout: the batch size and the number of parallel connections.
        context: the state shared by all hosts.
        messages: the messages about the run.
        engine: returns the program that executes a plan on its host.

    Raises:
        LockHeld, PreflightError: before anything was changed. From then on every host has an outcome.
    """
    changed = [host_run for host_run in host_runs if not host_run.plan.empty]
    phases = _Rollout(replan, rollout, context, messages, engine, is_alone=len(changed) == 1)
    outcomes = [_outcome(host_run, HostResult.UNCHANGED, 0) for host_run in host_runs if host_run.plan.empty]
    with closing(phases), phases.interrupts:
        locked = phases.lock_all(changed)
        outcomes += [each for each in locked if isinstance(each, HostOutcome)]
        running = [each for each in locked if isinstance(each, _Locked)]
        messages.started([each.host_run for each in running])
        prepared, failed = phases.prepare_all(running)
        if not failed:
            prepared, failed = phases.release(prepared)
        if failed:
            return [*outcomes, *failed, *(phases.not_started(each) for each in prepared)]
        return [*outcomes, *phases.upgrade(prepared)]


class Messages(Protocol):
    """The messages about a run."""

    def started(self, host_runs: Sequence[HostRun]) -> None:
        """Send the first message; `host_runs` are the hosts to change."""

    def of_host(self, plan: Plan) -> tuple[Notice | None, Channels, tuple[str, ...]]:
        """Return what the host needs for the message about its end, which it sends if the workstation is gone.

        The texts are the secrets to mask in it.
        """


@dataclass(frozen=True)
class _Locked:
    """A host whose run holds its lock."""

    host_run: HostRun
    remote: RemoteRun

    @property
    def name(self) -> str:
        return self.host_run.name


class _Rollout:
    """The phases of one run."""

    def __init__(
        self,
        replan: Callable[[HostState], Plan],
        rollout: RolloutPolicy,
        context: RunContext,
        messages: Messages,
        engine: Callable[[], bytes],
        *,
        is_alone: bool,
    ) -> None:
        self._replan, self._rollout, self._context, self._messages = replan, rollout, context, messages
        self._engine, self._is_alone = engine, is_alone
        self._offers: dict[str, ExitStack] = {}
        self.interrupts = Interrupts(context)

    def close(self) -> None:
        """Stop offering images."""
        for offers in self._offers.values():
            offers.close()

    def lock_all(self, host_runs: list[HostRun]) -> list[_Locked | HostOutcome]:
        """Lock the first host alone, then the rest, so that one of several simultaneous runs gets all its locks."""

        def lock_each(group: Sequence[HostRun]) -> list[_Locked | HostOutcome | RollingError]:
            results = self._each(group, self._lock_one, lambda _, error: error)
            if self._context.cancelled.is_set():
                results.append(Interrupted("interrupted before anything was changed."))
            return results

        return locking.acquire_all(host_runs, lock_each, self._release)

    def _release(self, locked: _Locked | HostOutcome) -> None:
        if isinstance(locked, _Locked):
            locked.remote.send(CANCEL)
            locked.remote.end()

    def _lock_one(self, host_run: HostRun) -> _Locked | HostOutcome | RollingError:
        """Start the run on the host, and again with a new plan if the host changed after its observation.

        Return the outcome of a host that needs no change by then.
        """
        for attempt in range(1, _MOST_PLANS + 1):
            if host_run.plan.empty:
                return _outcome(host_run, HostResult.UNCHANGED, 0)
            remote = self._start(host_run, attempt)
            end = remote.wait_for(LOCKED)
            if end is None or LOCKED in remote.reached:
                # A run that has ended by now has an outcome, like every run that has begun.
                return _Locked(host_run, remote)
            if not end.observation:
                return end.raised or Interrupted(f"{host_run.name}: interrupted before anything was changed.")
            self._context.emit(Phase.NOTE, "the host changed after it was observed; a new plan was made", host_run.name)
            now = observation.parse(host_run.application.name, host_run.name, end.observation)
            host_run = replace(host_run, state=now, plan=self._replan(now))
        return PreflightError(
            f"{host_run.name}: the host changes faster than it can be planned; nothing was touched.",
            next_step=f"{PROGRAM} lock.status and {PROGRAM} status show who changes it",
        )

    def _start(self, host_run: HostRun, attempt: int) -> RemoteRun:
        notice, channels, secrets = self._messages.of_host(host_run.plan)
        document = RunDocument(
            self._with_images(host_run),
            locking.basis(host_run.state),
            host_run.application.name,
            self._rollout.lease_seconds,
            attempt,
            notice,
            channels,
            secrets,
        )
        remote = RemoteRun(host_run.host, document, self._engine(), self._context)
        remote.start()
        if self._is_alone:
            # No other host has to be locked first.
            remote.send(PREPARE)
        return remote

    def _with_images(self, host_run: HostRun) -> Plan:
        """Offer the images of the plan's pushes to the host, and add their address to the steps."""
        plan, offer = host_run.plan, self._context.offer
        if offer is None or not any(step.pushes for step in plan.prepare):
            return plan
        offers = self._offers.setdefault(host_run.name, ExitStack())
        offers.close()
        prepare = [
            replace(step, script=script(offers.enter_context(offer(host_run.host, step)), step.script))
            if step.pushes
            else step
            for step in plan.prepare
        ]
        return replace(plan, prepare=tuple(prepare))

    def prepare_all(self, locked: list[_Locked]) -> tuple[list[_Locked], list[HostOutcome]]:
        """The barrier: prepare every host before any host continues."""
        results = self._each(locked, self._prepare_one, self._lost)
        ready = [result for result in results if isinstance(result, _Locked)]
        return ready, [result for result in results if isinstance(result, HostOutcome)]

    def _prepare_one(self, locked: _Locked) -> _Locked | HostOutcome:
        locked.remote.send(PREPARE)
        end = locked.remote.wait_for(PREPARED)
        self._offers.pop(locked.name, ExitStack()).close()
        return locked if end is None else _outcome_of(locked)

    def release(self, locked: list[_Locked]) -> tuple[list[_Locked], list[HostOutcome]]:
        """Run the release command on the first host that has one. Return the hosts that may continue, and the failed one.

        A host of the first batch gets `go` beforehand: with the command done, it needs no workstation.
        """
        chosen = [each for each in locked if each.host_run.plan.release][:1]
        self.interrupts.handle()
        if not chosen or self._context.cancelled.is_set():
            return locked, []
        first, *_ = split_batches([each.name for each in locked], self._rollout.batch)

        def release_one(host: _Locked) -> HostOutcome | None:
            host.remote.send(RELEASE)
            if host.name in first:
                host.remote.send(GO)
            host.remote.wait_for(RELEASED)
            return None if RELEASED in host.remote.reached else _outcome_of(host)

        failed = [outcome for outcome in self._each(chosen, release_one, self._lost) if outcome is not None]
        return [each for each in locked if not failed or each not in chosen], failed

    def not_started(self, locked: _Locked) -> HostOutcome:
        """End the run on a host that may not continue because another host failed."""
        locked.remote.send(CANCEL)
        return _outcome_of(locked)

    def upgrade(self, locked: list[_Locked]) -> list[HostOutcome]:
        """Upgrade batch after batch; after a batch with a failure, leave the remaining hosts unchanged."""
        by_name = {each.name: each for each in locked}
        outcomes: list[HostOutcome] = []
        stopped = False
        for batch in split_batches(list(by_name), self._rollout.batch):
            group = [by_name[name] for name in batch]
            self.interrupts.handle()
            if stopped or self._context.cancelled.is_set():
                outcomes += [self.not_started(each) for each in group]
                continue
            results = self._each(group, self._upgrade_one, self._lost)
            outcomes += results
            stopped = any(outcome.error for outcome in results)
        return outcomes

    def _upgrade_one(self, locked: _Locked) -> HostOutcome:
        locked.remote.send(GO)
        return _outcome_of(locked)

    def _lost(self, locked: _Locked, error: RollingError) -> HostOutcome:
        return _outcome(locked.host_run, HostResult.UNKNOWN, 0, error)

    def _each(self, hosts: Sequence[N], do: Callable[[N], R], on_defect: Callable[[N, RollingError], R]) -> list[R]:
        """Work on all hosts in parallel. Ctrl-C cancels the run, which undoes the steps.

        `on_defect` returns the result of a host after an unexpected error, which must not end the run on the others.
        """

        def work_on(host: N) -> R:
            try:
                return do(host)
            except RollingError as error:
                return on_defect(host, error)
            except Exception as error:  # noqa: BLE001 - a defect in the work on one host must not end the others
                next_step = f"{PROGRAM} status shows the state of the host; the same command resumes from it"
                return on_defect(host, unexpected(host.name, error, RollingError, next_step=next_step))

        if not hosts:
            return []
        with ThreadPoolExecutor(max_workers=max(1, self._rollout.parallel)) as pool:
            futures = [pool.submit(work_on, host) for host in hosts]
            wait_for_all(futures, self.interrupts)
            return [future.result() for future in futures]


class Interrupts:
    """Receives Ctrl-C, SIGTERM and SIGHUP during a run, in any code that they interrupt.

    As an exception, a signal between two waits would end this process without a word to the hosts, and in a callback
    of the interpreter it would be lost. The handler only counts, because it interrupts code that may hold a lock.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._received = self._handled = 0
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            self._former = {number: signal.signal(number, self._receive) for number in numbers}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _receive(self, *_: object) -> None:
        self._received += 1

    def handle(self) -> None:
        """Cancel the run after the first signal; later ones only report that the undo is running."""
        while self._handled < self._received:
            self._handled += 1
            if self._context.cancelled.is_set():
                self._context.emit(Phase.NOTE, "already stopping: still undoing the completed steps")
            else:
                self._context.emit(Phase.NOTE, "stopping: undoing the completed steps first")
                self._context.cancelled.set()


def wait_for_all(futures: Sequence[Future[R]], interrupts: Interrupts) -> None:
    """Wait for all futures, and handle signals meanwhile."""
    pending = set(futures)
    while pending:
        _, pending = wait(pending, timeout=0.2)
        interrupts.handle()


def _outcome_of(locked: _Locked) -> HostOutcome:
    """Wait for the end of the run on a host, and return its outcome."""
    end = locked.remote.end()
    outcome = _outcome(locked.host_run, end.result, end.seconds, end.raised)
    return replace(outcome, has_released=RELEASING in locked.remote.reached)


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
