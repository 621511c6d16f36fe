"""One run over many hosts: locks, the barrier, batches, and each host's end. It decides no step and prints nothing.

The border at which one host's error stops being the others' error: what a host raises becomes its line in the summary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TypeVar

from fabfile.commands import journal
from fabfile.commands import lock as locks
from fabfile.errors import (
    HostUnreachable,
    Interrupted,
    LockLost,
    RollingError,
    UndoFailed,
)
from fabfile.model import Application, HostResult, HostState, HostSummary, Lock, Phase, Rollout
from fabfile.plans import opening
from fabfile.plans.batches import split
from fabfile.plans.step import Change, Plan
from fabfile.remote import execute, locking, observe
from fabfile.remote.execute import Run
from fabfile.remote.host import Host

R = TypeVar("R")


@dataclass(frozen=True)
class Member:
    """One host of a run: how to reach it, what runs there, what was seen, and the plan made from that."""

    host: Host
    application: Application
    state: HostState
    plan: Plan

    @property
    def name(self) -> str:
        """The inventory's name for it."""
        return self.host.name


@dataclass(frozen=True)
class Ending:
    """How one host ended: its line, and the error when there was one."""

    summary: HostSummary
    error: RollingError | None = None


def roll_out(
    members: Sequence[Member],
    lock: Lock,
    dead: Mapping[str, str],
    replan: Callable[[Member, HostState], Plan],
    rollout: Rollout,
    run: Run,
    begun: Callable[[Sequence[Member]], None] = lambda _: None,
) -> list[Ending]:
    """Take every lock, prepare every host, then upgrade batch after batch until one fails.

    `dead` maps hosts to lock tokens of runs known to be dead. Raises LockHeld or PreflightError before anything
    changed; from then on every host has an Ending. `begun` hears of the hosts that are to change when all are locked.
    """
    rolling = _Rolling(lock, dead, replan, rollout, run)
    locked = rolling.lock_all([member for member in members if not member.plan.empty])
    unchanged = [_ending(member, HostResult.UNCHANGED, 0) for member in members if member.plan.empty]
    begun([member for member in locked if not member.plan.empty])
    prepared, failed = rolling.prepare_all(locked)
    if failed:
        return [*unchanged, *failed, *(rolling.not_started(member) for member in prepared)]
    return [*unchanged, *rolling.upgrade(prepared)]


class _Rolling:
    """The stages of one run."""

    def __init__(
        self,
        lock: Lock,
        dead: Mapping[str, str],
        replan: Callable[[Member, HostState], Plan],
        rollout: Rollout,
        run: Run,
    ) -> None:
        self._lock, self._dead, self._replan, self._rollout, self._run = lock, dead, replan, rollout, run

    def lock_all(self, members: list[Member]) -> list[Member]:
        """Lock the first host alone, then the rest: of runs that start together the first host lets one through."""

        def take(group: Sequence[Member]) -> list[Member | RollingError]:
            results = self._each(group, self._lock_one, lambda _, error: error)
            if self._run.cancelled.is_set():
                results.append(Interrupted("interrupted before anything was changed."))
            return results

        return locking.in_turn(members, take, lambda member: execute.unlock(member.host, member.plan, self._run))

    def _lock_one(self, member: Member) -> Member | RollingError:
        self._run.say(Phase.STARTED, "take the lock", member.name, "lock")
        began = self._run.clock()
        try:
            held = self._take(member)
        except RollingError as error:
            self._run.say(Phase.FAILED, "take the lock", member.name, "lock", 0, error.message)
            if not isinstance(error, HostUnreachable) and not locking.is_held(error):
                execute.unlock(member.host, member.plan, self._run)
            return error
        self._run.say(Phase.DONE, "take the lock", member.name, "lock", self._run.clock() - began)
        return held

    def _take(self, member: Member) -> Member:
        taken = locking.take(
            member.host,
            member.application,
            self._lock,
            environment=member.plan.environment,
            lease_seconds=self._rollout.lease_seconds + opening.LOCK_SECONDS,
            dead_token=self._dead.get(member.name, ""),
        )
        if taken.former is not None:
            title = f"took over the lock of {locking.who(taken.former)}: its run is dead or its lease is over"
            self._run.say(Phase.NOTE, title, member.name)
        now = observe.read(member.application, member.name, taken.output, taken.last_words)
        if opening.same(member.state, now):
            return member
        self._run.say(Phase.NOTE, "the host changed since it was looked at: planned again", member.name)
        return replace(member, state=now, plan=self._replan(member, now))

    def prepare_all(self, members: list[Member]) -> tuple[list[Member], list[Ending]]:
        """The barrier: every host has its backup and its images before any host goes on."""
        self._waits = len(members) > 1
        results = self._each(members, self._prepare_one, lambda member, error: self._give_up(member, error, 0))
        ready = [result for result in results if isinstance(result, Member)]
        return ready, [result for result in results if isinstance(result, Ending)]

    def _prepare_one(self, member: Member) -> Member | Ending:
        try:
            longest = sum(step.timeout_seconds for step in member.plan.prepare) if self._waits else 0
            patient = replace(self._run, lease_seconds=self._run.lease_seconds + longest)
            execute.prepare(member.host, member.plan, patient)
        except RollingError as error:
            return self._give_up(member, error, 0)
        return member

    def _give_up(self, member: Member, error: RollingError, seconds: float) -> Ending:
        """End a host on which nothing was begun that a visitor could see."""
        if isinstance(error, LockLost | HostUnreachable):
            return _ending(member, HostResult.UNKNOWN, seconds, error)
        try:
            execute.undo(member.host, member.plan, [], self._run, error, self._run.clock())
        except UndoFailed as failure:
            return _ending(member, HostResult.UNDO_FAILED, seconds, failure)
        return _ending(member, HostResult.UNDONE, seconds, error)

    def not_started(self, member: Member) -> Ending:
        """A host that stays as it was because another one failed."""
        execute.unlock(member.host, member.plan, self._run)
        return _ending(member, HostResult.NOT_STARTED, 0)

    def upgrade(self, members: list[Member]) -> list[Ending]:
        """Batch after batch; after a batch with a failure the rest is left as it is."""
        by_name = {member.name: member for member in members}
        endings: list[Ending] = []
        stopped = False
        batches = split(list(by_name), self._rollout.batch)
        for number, batch in enumerate(batches):
            group = [by_name[name] for name in batch]
            if stopped or self._run.cancelled.is_set():
                endings += [self.not_started(member) for member in group]
                continue
            waiting = [by_name[name] for later in batches[number + 1 :] for name in later]
            self._hold(waiting, max((member.plan.longest_seconds for member in group), default=0))
            results = self._each(
                group, self._upgrade_one, lambda member, error: _ending(member, HostResult.UNKNOWN, 0, error)
            )
            endings += results
            stopped = any(ending.error for ending in results)
        return endings

    def _hold(self, waiting: list[Member], seconds: float) -> None:
        """Keep the locks of hosts whose turn comes later."""

        def renew(member: Member) -> None:
            text = locks.renew(member.plan.home, self._run.release, lease_seconds=seconds + self._rollout.lease_seconds)
            try:
                member.host.run(journal.direct(text), timeout_seconds=30)
            except RollingError as error:
                self._run.say(Phase.NOTE, f"its lock could not be renewed: {error.message}", member.name)

        self._each(waiting, renew, lambda _, __: None)

    def _upgrade_one(self, member: Member) -> Ending:
        began = self._run.clock()
        if member.plan.empty:
            return self.unchanged(member)
        try:
            execute.apply(member.host, member.plan, self._run)
        except UndoFailed as error:
            return _ending(member, HostResult.UNDO_FAILED, self._run.clock() - began, error)
        except (LockLost, HostUnreachable) as error:
            return _ending(member, HostResult.UNKNOWN, self._run.clock() - began, error)
        except RollingError as error:
            undone = any(step.undo is not None for step in member.plan.steps)
            result = HostResult.UNDONE if undone else HostResult.NOT_STARTED
            return _ending(member, result, self._run.clock() - began, error)
        return self._finish_one(member, self._run.clock() - began)

    def _finish_one(self, member: Member, seconds: float) -> Ending:
        """Record and free a host that serves the new release; when that fails, nothing was undone."""
        try:
            execute.finish(member.host, member.plan, self._run, seconds)
        except RollingError as error:
            return _ending(member, HostResult.UNKNOWN, seconds, error)
        self._run.say(Phase.DONE, member.plan.result.value, member.name, seconds=seconds)
        return _ending(member, member.plan.result, seconds)

    def unchanged(self, member: Member) -> Ending:
        """A host that, looked at again under its lock, already is as wanted."""
        execute.unlock(member.host, member.plan, self._run)
        return _ending(member, HostResult.UNCHANGED, 0)

    def _each(
        self, members: Sequence[Member], do: Callable[[Member], R], defect: Callable[[Member, RollingError], R]
    ) -> list[R]:
        """Do something for all members at once; Ctrl-C makes their steps stop and undo, and is not lost.

        `defect` says what becomes of a member when an error comes that nobody foresaw: it must not end the others' run.
        """

        def one(member: Member) -> R:
            try:
                return do(member)
            except Exception as error:  # noqa: BLE001 - the border between one host and the others
                return defect(member, _unforeseen(member, error))

        if not members:
            return []
        with ThreadPoolExecutor(max_workers=max(1, self._rollout.parallel)) as pool:
            futures = [pool.submit(one, member) for member in members]
            wait_patiently(futures, self._run)
            return [future.result() for future in futures]


def _unforeseen(member: Member, error: Exception) -> RollingError:
    return RollingError(
        f"{member.name}: an error that this program did not foresee: {error!r}",
        next_step="inv status shows how the host stands; the same command goes on from there; please report the error",
    )


def wait_patiently(futures: Sequence[Future[R]], run: Run) -> None:
    """Wait for all; the first Ctrl-C cancels the run, later ones only say that the undo is under way."""
    pending = set(futures)
    while pending:
        try:
            _, pending = wait(pending, timeout=0.2)
        except KeyboardInterrupt:
            if run.cancelled.is_set():
                run.say(Phase.NOTE, "already stopping: what was done is being undone, this takes a moment")
            else:
                run.say(Phase.NOTE, "stopping: what was done is undone first")
                run.cancelled.set()


def _ending(member: Member, result: HostResult, seconds: float, error: RollingError | None = None) -> Ending:
    done = result in HostResult.changed()
    images = tuple(
        (
            choice.service,
            (choice.wanted if done or choice.change is Change.KEEP else choice.current or choice.wanted).reference,
        )
        for choice in member.plan.services
    )
    summary = HostSummary(member.name, result, seconds, images, error.message if error else "")
    return Ending(summary, error)
