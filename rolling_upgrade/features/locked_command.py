"""Run something short on every host under its lock, without a release and without an undo."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rolling_upgrade.console import operator
from rolling_upgrade.engine import lock as locks
from rolling_upgrade.engine import locking, observe, stage
from rolling_upgrade.engine.host import Answer, Host
from rolling_upgrade.engine.model import HostState, Lock
from rolling_upgrade.engine.run_id import new_run_id
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import HostUnreachable, LockHeld, RollingError, StepFailed
from rolling_upgrade.ssh.fleet import Fleet


def under_locks(
    fleet: Fleet, bodies: Mapping[str, Script], *, reason: str, seconds: float, dead: Mapping[str, str]
) -> dict[str, Answer | RollingError]:
    """Run each host's script under its lock, in one round trip.

    A locked or unreachable host gets its error as the result.

    Args:
        bodies: the script of each host.
        reason: the purpose that the lock names.
        seconds: the time limit of one script.
        dead: the lock tokens of runs known to be dead, by host.
    """
    lock = operator.lock(new_run_id(), reason)

    def one(host: Host) -> Answer | RollingError:
        return _one(host, fleet, lock, bodies[host.name], seconds, dead.get(host.name, ""))

    hosts = [host for host in fleet.hosts if host.name in bodies]
    return {**fleet.on_each(one, hosts=hosts, finish=True)}


def look_and_do(
    fleet: Fleet, do: Callable[[HostState], Script], *, reason: str, seconds: float, dead: Mapping[str, str]
) -> dict[str, Answer | RollingError]:
    """Lock each host, observe it again, and run the script that `do` derives from that: two round trips."""
    lock = operator.lock(new_run_id(), reason)

    def one(host: Host) -> Answer | RollingError:
        app, token = fleet.targets[host.name].application, dead.get(host.name, "")
        lease = seconds + locking.LOCK_SECONDS
        step = locking.acquire_step(app, lock, lease_seconds=lease, dead_token=token)
        try:
            taken = locking.take(host, step, environment=fleet.environment.name)
            body = do(observe.read(app, host.name, taken.output, taken.output_tail))
        except RollingError as error:
            if not isinstance(error, HostUnreachable) and not locking.is_held(error):
                host.run(stage.direct(locks.release(app.home, lock.token)), timeout_seconds=30)
            return error
        return _one(host, fleet, lock, body, seconds, "")

    return {**fleet.on_each(one, finish=True)}


def _one(host: Host, fleet: Fleet, lock: Lock, body: Script, seconds: float, dead: str) -> Answer | RollingError:
    app = fleet.targets[host.name].application
    script = locking.under_lock(app, lock, body, seconds=seconds, dead_token=dead)
    answer = host.run(script, timeout_seconds=seconds + stage.WAIT_SECONDS + 30)
    return _refused(host, fleet, answer) or answer


def _refused(host: Host, fleet: Fleet, answer: Answer) -> LockHeld | None:
    if answer.status == locks.HELD_STATUS:
        text = answer.output
        return locking.held(host.name, locks.parse(text), fleet.environment.name, locks.host_time(text))
    if answer.status == stage.BUSY_STATUS:
        return locking.busy(host.name)
    return None


def failure(answer: Answer | RollingError) -> RollingError | None:
    """The error of a host on which the script did not run or failed; None where it succeeded."""
    if isinstance(answer, RollingError):
        return answer
    return None if answer.ok else StepFailed(answer.output_tail)
