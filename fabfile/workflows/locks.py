"""Locks: who holds which host, taking them by hand for work on a host, and freeing them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fabfile import config
from fabfile.commands import journal
from fabfile.commands import lock as locks
from fabfile.errors import ConfigError, ExitCode, HostUnreachable, LockHeld, Mistake, RollingError
from fabfile.model import Environment, Lock
from fabfile.remote import locking, observe
from fabfile.remote.fabric_host import FabricHost
from fabfile.remote.host import Host
from fabfile.report.locks import Seen, render_locks, tell
from fabfile.workflows import operator
from fabfile.workflows.fleet import Fleet, opened

LOOK_SECONDS = 30.0
LONGEST_LEASE_SECONDS = 7 * 86_400
_LENGTH = re.compile(r"([0-9]{1,6})(m|h|d)")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Request:
    """What the operator asked for, as it was typed."""

    environment: str | None
    root: Path
    hosts: tuple[str, ...] = ()
    reason: str = ""
    lease: str = "1h"
    force: bool = False
    json: bool = False


def status(request: Request) -> ExitCode:
    """Print who holds each host. FAILED when one cannot be reached."""
    environment = _load(request)
    with opened(environment) as fleet:
        seen, lost = _look(fleet)
    render_locks(environment, seen, lost, json=request.json, out=sys.stdout)
    return ExitCode.FAILED if lost else ExitCode.DONE


def acquire(request: Request) -> ExitCode:
    """Take the lock of every chosen host, or of none. Raises LockHeld for a live holder."""
    environment, lease = _load(request), _lease(request)
    lock = operator.by_hand(request.reason)
    with opened(environment) as fleet:
        seen = _look_at_all(fleet)
        former = {name: _replaceable(name, one, environment) for name, one in seen.items()}
        own = {name for name, one in seen.items() if one.lock and operator.is_own(one.lock)}
        taking = _Taking(fleet, lock, lease, former, own)
        said = locking.in_turn(fleet.hosts, taking.each, taking.free)
    lines = [line for _, line in said]
    end = f"Deploys there end with exit code 4 until then. Next: inv lock.release --env {environment.name} when done"
    tell([*lines, end], environment, sys.stdout)
    return ExitCode.DONE


def release(request: Request) -> ExitCode:
    """Free what this person took by hand; with force whatever holds the hosts. Raises LockHeld for another's."""
    environment = _load(request)
    with opened(environment) as fleet:
        seen = _look_at_all(fleet)
        if not request.force:
            _refuse_foreign(seen, environment)
        found = observe.on_each(
            fleet.hosts, environment.rollout.parallel, lambda host: _free(host, fleet, seen[host.name])
        )
    tell([said for said in found.values() if isinstance(said, str)], environment, sys.stdout)
    errors = [error for error in found.values() if isinstance(error, RollingError)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise LockHeld("\n".join(str(error) for error in errors))
    return ExitCode.DONE


def _load(request: Request) -> Environment:
    return config.load(request.environment, root=request.root, hosts=request.hosts)


def _lease(request: Request) -> int:
    """The lease in seconds. Raises ConfigError for a missing reason or a length that is none."""
    mistakes = []
    if not request.reason.strip():
        mistakes.append(Mistake("command line", "--reason", "nothing", "what for: others read it"))
    match = _LENGTH.fullmatch(request.lease)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not 0 < seconds <= LONGEST_LEASE_SECONDS:
        mistakes.append(Mistake("command line", "--for", repr(request.lease), "30m, 2h or 1d; 7d at the most"))
    if mistakes:
        raise ConfigError("The command line has a mistake; nothing was contacted.", mistakes)
    return seconds


def _look(fleet: Fleet) -> tuple[dict[str, Seen], dict[str, str]]:
    def look(host: Host) -> Seen:
        home = fleet.targets[host.name].application.home
        text = host.run(journal.direct(locks.look(home)), timeout_seconds=LOOK_SECONDS).output
        lock = locks.parse(text)
        return Seen(lock, locks.host_time(text), stage=locks.stage_runs(text), dead=operator.is_dead(lock))

    found = observe.on_each(fleet.hosts, fleet.environment.rollout.parallel, look)
    seen = {name: one for name, one in found.items() if isinstance(one, Seen)}
    return seen, {name: str(one) for name, one in found.items() if isinstance(one, HostUnreachable)}


def _look_at_all(fleet: Fleet) -> dict[str, Seen]:
    seen, lost = _look(fleet)
    if lost:
        raise HostUnreachable("\n".join(lost.values()))
    return seen


def _replaceable(host: str, seen: Seen, environment: Environment) -> str:
    """The token of a holder that may be replaced before its lease is over: a dead one, or this person by hand."""
    lock = seen.lock
    if lock is None or seen.left_seconds <= 0:
        return ""
    if seen.dead or operator.is_own(lock):
        return lock.token
    raise locking.held(host, lock, environment.name, seen.now)


class _Taking:
    """Taking the hosts' locks by hand, group after group."""

    def __init__(self, fleet: Fleet, lock: Lock, lease_seconds: int, former: Mapping[str, str], own: set[str]) -> None:
        self._fleet, self._lock, self._lease, self._former, self._own = fleet, lock, lease_seconds, former, own

    def each(self, hosts: Sequence[FabricHost]) -> list[tuple[FabricHost, str] | RollingError]:
        """Take the lock of each of the hosts, all at once: what there is to say of it, or why it was not had."""
        rollout = self._fleet.environment.rollout
        found = observe.on_each(hosts, rollout.parallel, self._one)
        return [(host, said) if isinstance(said := found[host.name], str) else said for host in hosts]

    def _one(self, host: Host) -> str | RollingError:
        app = self._fleet.targets[host.name].application
        try:
            taken = locking.take(
                host,
                app,
                self._lock,
                environment=self._fleet.environment.name,
                lease_seconds=self._lease,
                dead_token=self._former[host.name],
            )
        except RollingError as error:
            # Whatever went wrong but another's lock: the host may be locked, or may still become so.
            if not locking.is_held(error):
                with suppress(RollingError):
                    self._free(host)
            return error
        own = taken.former is not None and operator.is_own(taken.former)
        over = f", taken over from {locking.who(taken.former)}" if taken.former is not None and not own else ""
        return f"{host.name}: {'renewed' if own else 'locked'} for {self._lease // 60} minutes{over}."

    def free(self, taken: tuple[FabricHost, str]) -> None:
        """Give a lock back that was taken before another one could not be had."""
        self._free(taken[0])

    def _free(self, host: Host) -> None:
        if host.name in self._own:
            # It was this person's before: a renewal that fails elsewhere takes nothing away.
            return
        home = self._fleet.targets[host.name].application.home
        host.run(journal.direct(locks.release(home, self._lock.token)), timeout_seconds=LOOK_SECONDS)


def _refuse_foreign(seen: Mapping[str, Seen], environment: Environment) -> None:
    foreign = {name: one.lock for name, one in seen.items() if one.lock and not operator.is_own(one.lock)}
    if foreign:
        listed = "\n  ".join(f"{name}: {locking.who(lock)}" for name, lock in foreign.items())
        raise LockHeld(
            f"not your lock; nothing was freed.\n  {listed}.",
            next_step=f"once it is sure that nobody works there: inv lock.release --env {environment.name} --force",
        )


def _free(host: Host, fleet: Fleet, seen: Seen) -> str | LockHeld:
    if seen.lock is None:
        return f"{host.name}: nobody held it."
    home = fleet.targets[host.name].application.home
    answer = host.run(journal.direct(locks.take_away(home, seen.lock.token)), timeout_seconds=LOOK_SECONDS)
    if answer.status == locks.BUSY_STATUS:
        return LockHeld(
            f"{host.name}: a stage of {locking.who(seen.lock)} still runs there; its lock was left.",
            next_step="wait for the stage to end, then the same command again",
        )
    if not answer.ok:
        return LockHeld(f"{host.name}: the lock could not be freed: {answer.last_words}")
    return f"{host.name}: freed; it was held by {locking.who(seen.lock)}."
