"""What every run that changes hosts does once its plans are made: refuse, show, ask, roll out, sum up.

What such runs differ in, their words and the way back, is in a `Story`; which steps they take, their workflows decide.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from fabfile.errors import ExitCode, LockLost, PartlyDone, PreflightError
from fabfile.model import Application, Environment, HostResult, HostState, Lock, Summary
from fabfile.plans import opening
from fabfile.plans.batches import split
from fabfile.plans.preflight import Finding
from fabfile.plans.step import Plan
from fabfile.remote.execute import Run
from fabfile.remote.locking import held
from fabfile.remote.rollout import Ending, Member, roll_out
from fabfile.report import Reporter
from fabfile.workflows import operator
from fabfile.workflows.telling import Telling


@dataclass(frozen=True)
class Story:
    """How one kind of run speaks of itself, and how it is undone.

    `reason` is what others read on the lock; `nothing` is said when no host needs anything; `back` gives the command
    that goes back from the hosts that were changed, '' when there is none.
    """

    action: str
    reason: str
    question: str
    hint: str
    done: str
    undone: str
    nothing: str
    back: Callable[[Sequence[Member]], str] = lambda _: ""


@dataclass(frozen=True)
class Roll:
    """One run over an environment's hosts; `began` is when its task did, Unix seconds, `heard` hears how it ended."""

    environment: Environment
    reporter: Reporter
    run: Run
    story: Story
    began: float
    force: bool = False
    dry_run: bool = False
    heard: Callable[[Summary], None] = lambda _: None

    def over(self, members: Sequence[Member], replan: Callable[[HostState], Plan]) -> ExitCode:
        """Show the plans, ask, carry them out and report. Raises RollingError when nothing was begun."""
        lock = operator.lock(self.run.release, self.story.reason)
        plans = [self._with_lock(member, lock) for member in members]
        self.reporter.plan(
            plans, scripts=self.dry_run, batches=split([plan.host for plan in plans], self.environment.rollout.batch)
        )
        if self.dry_run:
            return ExitCode.DONE
        dead = dead_locks({member.name: member.state for member in members}, self.environment)
        if any(not plan.empty for plan in plans):
            force = self.force or not self.environment.rollout.confirm
            operator.confirm(self.story.question, force=force, hint=self.story.hint)
        telling = Telling(self.environment, self.run, self.story.action)
        endings = roll_out(
            members, lock, dead, lambda _, state: replan(state), self.environment.rollout, self.run, telling.begun
        )
        summary = self._summary(endings, members, self.run.clock() - self.began)
        summary = replace(summary, warnings=(*summary.warnings, *telling.ended(summary, endings)))
        self.reporter.summary(summary)
        self.heard(summary)
        return ExitCode(summary.exit_code)

    def _with_lock(self, member: Member, lock: Lock) -> Plan:
        if member.plan.empty:
            return member.plan
        step = opening.lock_step(member.application, lock, lease_seconds=self.environment.rollout.lease_seconds)
        return replace(member.plan, lock=(step,))

    def _summary(self, endings: Sequence[Ending], members: Sequence[Member], seconds: float) -> Summary:
        code = _exit_code(endings, self.run)
        changed = {ending.summary.host for ending in endings if ending.summary.result in HostResult.changed()}
        back = self.story.back([member for member in members if member.name in changed])
        return Summary(
            action=self.story.action,
            environment=self.environment.name,
            release=self.run.release,
            exit_code=code,
            seconds=seconds,
            hosts=tuple(ending.summary for ending in endings),
            message=self._message(code, endings),
            undo_command=back,
            warnings=self.environment.warnings,
        )

    def _message(self, code: ExitCode, endings: Sequence[Ending]) -> str:
        def names(*results: HostResult) -> str:
            return ", ".join(ending.summary.host for ending in endings if ending.summary.result in results)

        changed = names(*HostResult.changed())
        if code is ExitCode.DONE:
            verb = next((e.summary.result.value for e in endings if e.summary.result in HostResult.changed()), "")
            return f"{changed} {verb}." if changed else self.story.nothing
        parts = [
            f"{label}: {found}."
            for label, found in (
                (self.story.done, names(*HostResult.changed(), HostResult.UNCHANGED)),
                (self.story.undone, names(HostResult.UNDONE)),
                ("Left as it was", names(HostResult.NOT_STARTED)),
                ("Outcome unknown, the color that serves has passed its gate", names(HostResult.UNKNOWN)),
                ("The undo failed, a person has to look", names(HostResult.UNDO_FAILED)),
            )
            if found
        ]
        steps = [ending.error.next_step for ending in endings if ending.error is not None and ending.error.next_step]
        next_step = steps[0] if steps else f"inv status --env {self.environment.name}; the same command tries again"
        return f"{' '.join(parts)} Next: {next_step}"


def begin(environment: Environment, reporter: Reporter) -> Run:
    """A run with an id of its own, which sorts by time and is its release's id and its lock's token."""
    release = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    return Run(release, environment.rollout.lease_seconds, reporter.event, time.time, time.sleep)


def refuse(found: Sequence[Finding], what: str) -> None:
    """Raise PreflightError with every finding; do nothing without one."""
    if found:
        listed = "\n  ".join(str(finding) for finding in found)
        raise PreflightError(f"not fit for {what}; nothing was touched.\n  {listed}")


def refuse_unfit(
    found: Sequence[Finding], what: str, states: Mapping[str, HostState], environment: Environment
) -> None:
    """Refuse hosts with findings. A live lock is told first: what its run has begun may look like a fault."""
    if found:
        dead_locks(states, environment)
    refuse(found, what)


def dead_locks(states: Mapping[str, HostState], environment: Environment) -> dict[str, str]:
    """Tokens of dead runs by host. Raises LockHeld for a live one, before anything is asked."""
    dead: dict[str, str] = {}
    for name, state in states.items():
        lock = state.lock
        if lock is None or lock.expires_at <= state.now:
            continue
        if not operator.is_dead(lock):
            raise held(name, lock, environment.name, state.now)
        dead[name] = lock.token
    return dead


def hosts_option(changed: Sequence[Member], environment: Environment, asked: Sequence[str]) -> str:
    """The option that picks exactly these hosts; nothing when they are all hosts of the environment."""
    names = sorted(member.name for member in changed)
    every = not asked and len(names) == len(environment.targets)
    return "" if every else f" --hosts {','.join(names)}"


class Signature(TypedDict):
    """Who runs this, from which machine, and from which state of this clone, as a history line has it."""

    owner: str
    workstation: str
    revision: str


def signature(root: Path) -> Signature:
    """The signature of this process."""
    return Signature(owner=operator.name(), workstation=operator.workstation(), revision=operator.revision(root))


def applications(environment: Environment) -> dict[str, Application]:
    """What is to run on each host, as today's files say."""
    return {target.name: target.application for target in environment.targets}


def _exit_code(endings: Sequence[Ending], run: Run) -> ExitCode:
    results = [ending.summary.result for ending in endings]
    if HostResult.UNDO_FAILED in results:
        return ExitCode.UNDO_FAILED
    if any(isinstance(ending.error, LockLost) for ending in endings):
        return ExitCode.LOCKED
    fine = {*HostResult.changed(), HostResult.UNCHANGED}
    if all(result in fine for result in results):
        return ExitCode.DONE
    if HostResult.UNKNOWN in results or any(result in HostResult.changed() for result in results):
        return PartlyDone.exit_code
    return ExitCode.INTERRUPTED if run.cancelled.is_set() else ExitCode.FAILED
