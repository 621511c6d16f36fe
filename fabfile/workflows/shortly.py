"""Something short on every host under its lock, in one or two round trips: what is no release and needs no undo."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from fabfile.commands import journal
from fabfile.commands import lock as locks
from fabfile.commands.shell import Script
from fabfile.errors import ExitCode, LockHeld, RollingError
from fabfile.model import HostState, Lock
from fabfile.plans import opening
from fabfile.remote import observe
from fabfile.remote.host import Answer, Host
from fabfile.remote.locking import held, is_held
from fabfile.workflows import operator
from fabfile.workflows.fleet import Fleet


def under_locks(
    fleet: Fleet, bodies: Mapping[str, Script], *, reason: str, seconds: float, dead: Mapping[str, str]
) -> dict[str, Answer | RollingError]:
    """Run each host's script under its lock; one that is locked or not reached gives its error instead.

    `dead` maps hosts to lock tokens of runs known to be dead; `seconds` is the deadline of one script.
    """
    lock = _lock(reason)

    def one(host: Host) -> Answer | RollingError:
        return _one(host, fleet, lock, bodies[host.name], seconds, dead.get(host.name, ""))

    hosts = [host for host in fleet.hosts if host.name in bodies]
    return {**observe.on_each(hosts, fleet.environment.rollout.parallel, one)}


def look_and_do(
    fleet: Fleet, do: Callable[[HostState], Script], *, reason: str, seconds: float, dead: Mapping[str, str]
) -> dict[str, Answer | RollingError]:
    """Lock each host, look at it again, and run what follows from what is there then: two round trips."""
    lock = _lock(reason)

    def one(host: Host) -> Answer | RollingError:
        app, token = fleet.targets[host.name].application, dead.get(host.name, "")
        lease = seconds + opening.LOCK_SECONDS
        look = opening.lock_and_look(app, lock, lease_seconds=lease, dead_token=token)
        answer = host.run(look, timeout_seconds=opening.LOCK_SECONDS)
        refused = _refused(host, fleet, answer)
        if refused is not None:
            if not is_held(refused):
                # The lock was had, a stage of a former run was not waited for.
                host.run(journal.direct(locks.release(app.home, lock.token)), timeout_seconds=30)
            return refused
        try:
            body = do(observe.read(app, host.name, answer.output, answer.last_words))
        except RollingError as error:
            host.run(journal.direct(locks.release(app.home, lock.token)), timeout_seconds=30)
            return error
        return _one(host, fleet, lock, body, seconds, "")

    return {**observe.on_each(fleet.hosts, fleet.environment.rollout.parallel, one)}


def _lock(reason: str) -> Lock:
    return operator.lock(f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}", reason)


def _one(host: Host, fleet: Fleet, lock: Lock, body: Script, seconds: float, dead: str) -> Answer | RollingError:
    app = fleet.targets[host.name].application
    script = opening.under_lock(app, lock, body, seconds=seconds, dead_token=dead)
    answer = host.run(script, timeout_seconds=seconds + journal.WAIT_SECONDS + 30)
    return _refused(host, fleet, answer) or answer


def _refused(host: Host, fleet: Fleet, answer: Answer) -> LockHeld | None:
    if answer.status == locks.HELD_STATUS:
        text = answer.output
        return held(host.name, locks.parse(text), fleet.environment.name, locks.host_time(text))
    if answer.status == journal.BUSY_STATUS:
        return LockHeld(f"{host.name}: a stage of a former run is still running.", next_step="try again in a minute")
    return None


def exit_code(answers: Mapping[str, Answer | RollingError]) -> ExitCode:
    """DONE when all went well, PARTLY_DONE when some did, else what the first error or failure says."""
    failed = [answer for answer in answers.values() if isinstance(answer, RollingError) or not answer.ok]
    if not failed:
        return ExitCode.DONE
    if len(failed) < len(answers):
        return ExitCode.PARTLY_DONE
    return failed[0].exit_code if isinstance(failed[0], RollingError) else ExitCode.FAILED
