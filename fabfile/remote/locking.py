"""Taking the locks of hosts: one host's, and many in an order that lets one of several runs through. It frees none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fabfile.commands import journal
from fabfile.commands import lock as locks
from fabfile.errors import LockHeld, RollingError, StepFailed
from fabfile.model import Application, Lock
from fabfile.plans import opening
from fabfile.remote.host import Host

M = TypeVar("M")
T = TypeVar("T")


@dataclass(frozen=True)
class Taken:
    """A host's lock that was taken: what was seen under it, and whose it was until its lease was over."""

    output: str
    last_words: str
    former: Lock | None = None


def in_turn(
    members: Sequence[M], take: Callable[[Sequence[M]], Sequence[T | RollingError]], free: Callable[[T], None]
) -> list[T]:
    """Take the first member's lock alone, then the others': of several that start together one gets the first.

    Raises the first error there is, once everything that was taken is free again.
    """
    taken: list[T] = []
    for group in (members[:1], members[1:]):
        errors = []
        for result in take(group):
            if isinstance(result, RollingError):
                errors.append(result)
            else:
                taken.append(result)
        if errors:
            for one in taken:
                free(one)
            raise errors[0]
    return taken


def take(
    host: Host, app: Application, lock: Lock, *, environment: str, lease_seconds: float, dead_token: str = ""
) -> Taken:
    """Take one host's lock, wait until no stage runs there, and look at it.

    Raises LockHeld for a live holder, StepFailed when the lock may not have been taken (a full disk, no setup).
    """
    script = opening.lock_and_look(app, lock, lease_seconds=lease_seconds, dead_token=dead_token)
    answer = host.run(script, timeout_seconds=opening.LOCK_SECONDS)
    if answer.status == locks.HELD_STATUS:
        raise held(host.name, locks.parse(answer.output), environment, locks.host_time(answer.output))
    if answer.status == journal.BUSY_STATUS:
        raise LockHeld(f"{host.name}: a stage of a former run is still running.", next_step="try again in a minute")
    if not answer.ok:
        raise StepFailed(
            f"{host.name}: the lock could not be taken (status {answer.status}): {answer.last_words}",
            next_step=f"inv doctor --env {environment} --hosts {host.name}",
        )
    before, _, _ = answer.output.partition("@@")
    former = locks.parse(before) if before.startswith("takeover") else None
    return Taken(answer.output, answer.last_words, former)


def is_held(error: RollingError) -> bool:
    """Whether another run holds the lock, so that there is nothing of ours to free."""
    return isinstance(error, LockHeld) and "locked by" in error.message


def held(host: str, lock: Lock | None, environment: str, now: int) -> LockHeld:
    """The error for a lock that another run holds at `now` on the host's clock: who, why, until when, what to do."""
    if lock is None:
        return LockHeld(f"{host}: another run holds the lock.")
    age, left = max(0, now - lock.acquired_at), max(0, lock.expires_at - now)
    lease = f"its lease ends in {left} s" + ("" if locks.is_manual(lock) else " unless renewed")
    next_step = f"wait for it (inv lock.status --env {environment} shows it); a dead run's lease ends by itself"
    if locks.is_manual(lock):
        next_step = f"ask {lock.owner}; if nobody works there any more: inv lock.release --env {environment} --force"
    return LockHeld(
        f"{host}: locked by {who(lock)}, for {age} s so far; {lease}. Nothing was touched.", next_step=next_step
    )


def who(lock: Lock) -> str:
    """The holder of a lock and what for: a run's process, or a person's hand."""
    how = "by hand" if locks.is_manual(lock) else f"process {lock.pid}"
    return f"{lock.owner}@{lock.workstation} ({how}): {lock.reason}"
