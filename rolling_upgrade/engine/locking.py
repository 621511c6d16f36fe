"""Acquire the locks of hosts, and describe the holder in errors.

Runs that start at the same time compete for the first host alone, so that one of them gets all its locks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

from rolling_upgrade.engine import lock_file, observation
from rolling_upgrade.engine.host import Answer, Host
from rolling_upgrade.engine.model import Application, HostState, Lock
from rolling_upgrade.engine.plan import Step
from rolling_upgrade.engine.shell import Script, direct, quote, sha256
from rolling_upgrade.engine.untrusted import Malformed
from rolling_upgrade.errors import PROGRAM, LockHeld, LockLost, PreflightError, RollingError, StepFailed, StepRunning

H = TypeVar("H")
T = TypeVar("T")

#: The time limit for acquiring a lock: the wait for a step of an earlier run, then one observation.
LOCK_SECONDS = 240


@dataclass(frozen=True)
class Acquired:
    """An acquired lock: the answer with the observation under it, and the previous holder if the lock was taken over."""

    answer: Answer
    previous: Lock | None = None

    def state(self, app: str, host: str) -> HostState:
        """The observed state of the host. Raises PreflightError if the observation is incomplete."""
        try:
            return observation.parse(app, host, self.answer.output)
        except Malformed as error:
            raise PreflightError(
                f"{host}: {error}: {self.answer.output_tail}", next_step=f"log in to {host} and check what it prints"
            ) from error


def acquire_all(
    hosts: Sequence[H], acquire_each: Callable[[Sequence[H]], Sequence[T | RollingError]], release: Callable[[T], None]
) -> list[T]:
    """Acquire the lock of the first host alone, then the locks of all others.

    Raises:
        RollingError: the first error, after every acquired lock was released.
    """
    acquired: list[T] = []
    for group in (hosts[:1], hosts[1:]):
        errors = []
        for result in acquire_each(group):
            if isinstance(result, RollingError):
                errors.append(result)
            else:
                acquired.append(result)
        if errors:
            for lock in acquired:
                release(lock)
            raise errors[0]
    return acquired


def acquire_step(app: Application, lock: Lock, *, lease_seconds: float, replaceable_token: str = "") -> Step:
    """The step that acquires a host's lock, waits until no step runs there, and observes the host.

    The observation does not probe the application: no plan needs its answers, and a hanging one would delay the run.

    Args:
        app: the application whose host is locked.
        lock: the holder, as other runs will see it.
        lease_seconds: how long the lock lasts unless it is renewed.
        replaceable_token: the token of a run known to be dead; the step does not wait for its lease to expire.
    """
    lock_script = lock_file.acquire(app.home, lock, lease_seconds=lease_seconds, replaceable_token=replaceable_token)
    body = direct(lock_script, _wait_for_step(app), observation.shell_text(app, probe=False))
    return Step("lock", "acquire the lock and observe again", body, LOCK_SECONDS)


def acquire(host: Host, step: Step, *, environment: str, cancelled: Event | None = None) -> Acquired:
    """Run the step of `acquire_step` on its host.

    Raises:
        Cancelled: `cancelled` was set; the lock may have been acquired.
        LockHeld: another run holds the lock.
        StepRunning: the lock was acquired, but a step of an earlier run has not ended.
        StepFailed: the lock may not have been acquired: a full disk, a host without setup.
    """
    answer = host.run(step.script, timeout_seconds=step.timeout_seconds, cancelled=cancelled)
    _check_acquired(host.name, answer, environment)
    if not answer.ok:
        raise StepFailed(
            f"{host.name}: the lock could not be acquired (status {answer.status}): {answer.output_tail}",
            next_step=f"{PROGRAM} doctor --env {environment} --hosts {host.name}",
        )
    before, _, _ = answer.output.partition("@@")
    previous = lock_file.parse(before) if before.startswith("takeover") else None
    return Acquired(answer, previous)


def run_under_lock(
    host: Host,
    app: Application,
    lock: Lock,
    script: Script,
    *,
    environment: str,
    seconds: float,
    replaceable_token: str = "",
) -> Answer:
    """Run the script of `under_lock` on its host. Raises LockHeld or StepRunning if it did not run."""
    locked = under_lock(app, lock, script, seconds=seconds, replaceable_token=replaceable_token)
    answer = host.run(locked, timeout_seconds=seconds + lock_file.WAIT_SECONDS + 30)
    _check_acquired(host.name, answer, environment)
    return answer


def _check_acquired(host: str, answer: Answer, environment: str) -> None:
    if answer.status == lock_file.HELD_STATUS:
        raise held_error(host, lock_file.parse(answer.output), environment, lock_file.host_time(answer.output))
    if answer.status == lock_file.BUSY_STATUS:
        raise StepRunning(f"{host}: a step of an earlier run is still running.", next_step="try again in a minute")


def is_held_by_other(error: RollingError) -> bool:
    """Whether another run holds the lock, so that this run has none to release."""
    return isinstance(error, LockHeld) and not isinstance(error, StepRunning | LockLost)


def held_error(host: str, lock: Lock | None, environment: str, now: int) -> LockHeld:
    """The error for a lock that another run holds at `now` on the host's clock: holder, purpose, lease, next command."""
    if lock is None:
        return LockHeld(f"{host}: another run holds the lock.")
    age, left = max(0, now - lock.acquired_at), max(0, lock.expires_at - now)
    lease = f"its lease expires in {left} s" + ("" if lock_file.is_manual(lock) else " unless renewed")
    next_step = f"{PROGRAM} attach --env {environment} follows it; the lease of a dead run expires"
    if lock_file.is_manual(lock):
        next_step = f"ask {lock.owner}; if the work there is done: {PROGRAM} lock.release --env {environment} --force"
    return LockHeld(
        f"{host}: locked by {describe(lock)}, for {age} s so far; {lease}. Nothing was touched.", next_step=next_step
    )


def describe(lock: Lock) -> str:
    """The holder of a lock and its purpose, for operators."""
    how = "by hand" if lock_file.is_manual(lock) else f"process {lock.pid}"
    return f"{lock.owner}@{lock.workstation} ({how}): {lock.reason}"


def under_lock(app: Application, lock: Lock, body: Script, *, seconds: float, replaceable_token: str = "") -> Script:
    """Run a short script under the lock in one round trip: acquire, wait for a running step, run, release.

    The script exits with the status of the body. It prints the output of the body after the release, so that a
    dropped connection cannot leave the lock behind.
    """
    text = f"""\
{lock_file.acquire(app.home, lock, lease_seconds=seconds + lock_file.WAIT_SECONDS, replaceable_token=replaceable_token)}
set +e
said=$(
exec 2>&1
{_wait_for_step(app)} || exit
timeout -k 5 {seconds:g} sh /dev/fd/3 3<<'END-OF-THE-BODY' </dev/null
{body.text}
END-OF-THE-BODY
)
status=$?
set -e
{lock_file.release(app.home, lock.token)}
printf '%s\\n' "$said"
exit "$status\""""
    return direct(Script(text, body.secrets))


def _wait_for_step(app: Application) -> str:
    """Wait for the step that a dead run left; exits BUSY_STATUS if it does not end."""
    return f"flock -w {lock_file.WAIT_SECONDS} -E {lock_file.BUSY_STATUS} {quote(app.home + '/lock/stage')} true"


def basis(state: HostState) -> str:
    """Return a hash of everything in an observed state that a plan depends on.

    A plan made from one observation is valid for another one with the same basis.
    """
    containers = sorted((c.name, c.running, c.release, c.spec, c.image.digest) for c in state.containers)
    releases = [release.id for release in state.releases]
    active = sorted((name, color.value) for name, color in state.active)
    accessories = sorted((a.name, a.running, a.spec, a.image.digest) for a in state.accessories)
    parts = (
        active,
        containers,
        *([accessories] if accessories else []),
        state.live_site_hash,
        releases,
        state.fact("maintenance"),
    )
    return sha256(json.dumps(parts).encode())
