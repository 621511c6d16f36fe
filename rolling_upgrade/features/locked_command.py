"""Run a short script on every host under its lock; it makes no release and has no undo."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rolling_upgrade.console import operator
from rolling_upgrade.engine import lock_file, locking
from rolling_upgrade.engine.host import Answer, Host
from rolling_upgrade.engine.model import HostState, Lock
from rolling_upgrade.engine.run_id import new_run_id
from rolling_upgrade.engine.shell import Script, direct
from rolling_upgrade.errors import HostUnreachable, LockHeld, RollingError, StepFailed
from rolling_upgrade.ssh.fleet import Fleet


def run_under_locks(
    fleet: Fleet, scripts: Mapping[str, Script], *, reason: str, seconds: float, dead: Mapping[str, str]
) -> dict[str, Answer | RollingError]:
    """Run each host's script under its lock, in one round trip.

    A locked or unreachable host gets its error as the result.

    Args:
        scripts: the script of each host.
        reason: the reason that the lock shows.
        seconds: the time limit of one script.
        dead: the lock tokens of dead runs by host.
    """
    lock = operator.lock(new_run_id(), reason)

    def attempt(host: Host) -> Answer | RollingError:
        return _run(host, fleet, lock, scripts[host.name], seconds, dead.get(host.name, ""))

    hosts = [host for host in fleet.hosts if host.name in scripts]
    return {**fleet.on_each(attempt, hosts=hosts, finish=True)}


def observe_and_run(
    fleet: Fleet, script_for: Callable[[HostState], Script], *, reason: str, seconds: float, dead: Mapping[str, str]
) -> dict[str, Answer | RollingError]:
    """Lock each host, observe it again, and run the script for the observed state: two round trips."""
    lock = operator.lock(new_run_id(), reason)

    def attempt(host: Host) -> Answer | RollingError:
        app, token = fleet.targets[host.name].application, dead.get(host.name, "")
        lease = seconds + locking.LOCK_SECONDS
        step = locking.acquire_step(app, lock, lease_seconds=lease, dead_token=token)
        try:
            acquired = locking.acquire(host, step, environment=fleet.environment.name)
            script = script_for(acquired.state(app, host.name))
        except RollingError as error:
            if not isinstance(error, HostUnreachable) and not locking.is_held_by_other(error):
                host.run(direct(lock_file.release(app.home, lock.token)), timeout_seconds=30)
            return error
        return _run(host, fleet, lock, script, seconds, "")

    return {**fleet.on_each(attempt, finish=True)}


def _run(host: Host, fleet: Fleet, lock: Lock, script: Script, seconds: float, dead: str) -> Answer | RollingError:
    app, environment = fleet.targets[host.name].application, fleet.environment.name
    try:
        return locking.run_under_lock(
            host, app, lock, script, environment=environment, seconds=seconds, dead_token=dead
        )
    except LockHeld as error:
        return error


def failure(answer: Answer | RollingError) -> RollingError | None:
    """Return the error of a host on which the script did not run or failed, else None."""
    if isinstance(answer, RollingError):
        return answer
    return None if answer.ok else StepFailed(answer.output_tail)
