"""The lock commands: show the holders of locks, lock hosts for manual work, and release locks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rolling_upgrade import config
from rolling_upgrade.console import identity
from rolling_upgrade.console.output import print_lines, print_result
from rolling_upgrade.console.text import duration, one_line, table, unreachable_lines
from rolling_upgrade.engine import lock_file, locking
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.model import Environment, Lock
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.engine.shell import direct
from rolling_upgrade.errors import PROGRAM, ExitCode, LockHeld, RollingError, usage_error
from rolling_upgrade.ssh.fabric_host import FabricHost
from rolling_upgrade.ssh.fleet import Fleet, opened

LOCK_SECONDS = 30.0
MAX_LEASE_SECONDS = 7 * 86_400
_DURATION = re.compile(r"([0-9]{1,6})(m|h|d)")
_UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class HostLock:
    """The lock of a host at `now` on its clock, whether a step runs, and whether the holder's process has ended."""

    lock: Lock | None
    now: int
    step_runs: bool = False
    dead: bool = False

    @property
    def left_seconds(self) -> int:
        """The remaining seconds of the lease; 0 or less when it has expired."""
        return self.lock.expires_at - self.now if self.lock else 0


def status(env: str | None, *, root: Path, hosts: tuple[str, ...] = (), json: bool = False) -> ExitCode:
    """Print the lock of each host. FAILED when a host is unreachable."""
    environment = config.load(env, root=root, hosts=hosts)
    with opened(environment) as fleet:
        read, unreachable = fleet.on_reachable(lambda host: _read_lock(host, fleet))
    view = lock_json if json else lock_lines
    print_result(view(environment.name, read, unreachable), environment.secrets)
    return ExitCode.FAILED if unreachable else ExitCode.DONE


def acquire(
    env: str | None, *, root: Path, hosts: tuple[str, ...] = (), reason: str = "", for_: str = "1h"
) -> ExitCode:
    """Lock every chosen host, or none. Raises LockHeld for a live holder."""
    environment, lease_seconds = config.load(env, root=root, hosts=hosts), _lease(reason, for_)
    lock = identity.manual_lock(reason)
    with opened(environment) as fleet:
        read = fleet.on_all(lambda host: _read_lock(host, fleet))
        former = {name: _replaceable(name, state, environment) for name, state in read.items()}
        own = {name for name, state in read.items() if state.lock and identity.is_own(state.lock)}

        def free(host: Host) -> None:
            # Keep a lock that the operator held before. If the release of another fails, its lease expires.
            if host.name not in own:
                with suppress(RollingError):
                    home = fleet.targets[host.name].application.home
                    host.run(direct(lock_file.release(home, lock.token)), timeout_seconds=LOCK_SECONDS)

        def take(hosts: Sequence[FabricHost]) -> list[tuple[FabricHost, str] | RollingError]:
            results = fleet.on_each(
                lambda host: _acquire(host, fleet, lock, lease_seconds, former[host.name], free),
                hosts=hosts,
                finish=True,
            )
            return [(host, line) if isinstance(line := results[host.name], str) else line for host in hosts]

        taken = locking.acquire_all(fleet.hosts, take, lambda locked: free(locked[0]))
    lines = [line for _, line in taken]
    end = f"Until then, deploys to these hosts exit with 4. Next: {PROGRAM} lock.release --env {environment.name} when done"
    print_lines([*lines, end], environment.secrets)
    return ExitCode.DONE


def release(env: str | None, *, root: Path, hosts: tuple[str, ...] = (), force: bool = False) -> ExitCode:
    """Release the operator's manual locks; with `force` every lock. Raises LockHeld for locks of others."""
    environment = config.load(env, root=root, hosts=hosts)
    with opened(environment) as fleet:
        read = fleet.on_all(lambda host: _read_lock(host, fleet))
        if not force:
            _refuse_foreign(read, environment)
        results = fleet.on_each(lambda host: _release(host, fleet, read[host.name]), finish=True)
    print_lines([line for line in results.values() if isinstance(line, str)], environment.secrets)
    errors = [error for error in results.values() if isinstance(error, RollingError)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise LockHeld("\n".join(str(error) for error in errors))
    return ExitCode.DONE


def _lease(reason: str, lease: str) -> int:
    """Return the lease in seconds. Raises ConfigError for a missing reason or an invalid lease."""
    issues = []
    if not reason.strip():
        issues.append(("--reason", "", "the reason, for others to read"))
    match = _DURATION.fullmatch(lease)
    seconds = int(match[1]) * _UNIT_SECONDS[match[2]] if match else 0
    if not 0 < seconds <= MAX_LEASE_SECONDS:
        issues.append(("--for", repr(lease), "30m, 2h or 1d; at most 7d"))
    if issues:
        raise usage_error(*issues)
    return seconds


def _read_lock(host: Host, fleet: Fleet) -> HostLock:
    home = fleet.targets[host.name].application.home
    text = host.run(direct(lock_file.show(home)), timeout_seconds=LOCK_SECONDS).output
    lock = lock_file.parse(text)
    return HostLock(
        lock,
        lock_file.host_time(text),
        step_runs=lock_file.is_step_running(text),
        dead=identity.is_dead(lock) and not lock_file.is_executing(text),
    )


def _replaceable(host: str, state: HostLock, environment: Environment) -> str:
    """Return the token of a lock that may be replaced within its lease: a dead run's, or the operator's own."""
    lock = state.lock
    if lock is None or state.left_seconds <= 0:
        return ""
    if state.dead or identity.is_own(lock):
        return lock.token
    raise locking.held_error(host, lock, environment.name, state.now)


def _acquire(
    host: Host, fleet: Fleet, lock: Lock, lease_seconds: int, former: str, free: Callable[[Host], None]
) -> str | RollingError:
    """Lock the host, or renew or take over the lock with the token `former`; return a line to show, or an error."""
    app = fleet.targets[host.name].application
    try:
        step = locking.acquire_step(app, lock, lease_seconds=lease_seconds, replaceable_token=former)
        taken = locking.acquire(host, step, environment=fleet.environment.name)
    except RollingError as error:
        # After any error except another holder's lock, the host may be locked, or become locked.
        if not locking.is_held_by_other(error):
            free(host)
        return error
    own = taken.previous is not None and identity.is_own(taken.previous)
    origin = f", taken over from {locking.describe(taken.previous)}" if taken.previous is not None and not own else ""
    return f"{host.name}: {'renewed' if own else 'locked'} for {lease_seconds // 60} minutes{origin}."


def _refuse_foreign(locks_by_host: Mapping[str, HostLock], environment: Environment) -> None:
    foreign = {
        name: state.lock for name, state in locks_by_host.items() if state.lock and not identity.is_own(state.lock)
    }
    if foreign:
        listed = "\n  ".join(f"{name}: {locking.describe(lock)}" for name, lock in foreign.items())
        raise LockHeld(
            f"the lock belongs to another operator; nothing was released.\n  {listed}.",
            next_step=f"if nobody is working on the host: {PROGRAM} lock.release --env {environment.name} --force",
        )


def _release(host: Host, fleet: Fleet, state: HostLock) -> str | LockHeld:
    if state.lock is None:
        return f"{host.name}: the lock was free."
    home = fleet.targets[host.name].application.home
    answer = host.run(direct(lock_file.force_release(home, state.lock.token)), timeout_seconds=LOCK_SECONDS)
    if answer.status == lock_file.BUSY_STATUS:
        return LockHeld(
            f"{host.name}: a step of {locking.describe(state.lock)} is still running; its lock was not released.",
            next_step="wait until the step ends, then run the same command again",
        )
    if not answer.ok:
        return LockHeld(f"{host.name}: the lock could not be released: {answer.output_tail}")
    return f"{host.name}: released; it was held by {locking.describe(state.lock)}."


def advice(state: HostLock, environment: str) -> str:
    """Return the next step for an operator who needs the host."""
    lock = state.lock
    if lock is None:
        return "a step runs without a lock; the next run waits for it"
    if state.left_seconds <= 0:
        return "its lease has expired; the next run takes it over"
    if state.dead:
        return "its process on this machine is gone; the next run from here takes it over"
    if state.step_runs:
        return "a step is running; wait for it"
    if lock.pid <= 0:
        return f"acquired by hand; ask {one_line(lock.owner)}. {PROGRAM} lock.release --env {environment} releases it"
    return "wait for it; if its run is dead, its lease expires"


def _row(name: str, state: HostLock) -> tuple[str, ...]:
    lock, step = state.lock, "runs" if state.step_runs else "-"
    if lock is None:
        return (name, "free", "-", "-", "-", step)
    how = f"process {lock.pid}" if lock.pid > 0 else "by hand"
    holder = one_line(f"{lock.owner}@{lock.workstation} ({how})")
    lease = f"{duration(state.left_seconds)} left" if state.left_seconds > 0 else "expired"
    return (name, holder, one_line(lock.reason), duration(state.now - lock.acquired_at), lease, step)


def _origin(lock: Lock) -> str:
    """Return the holder's address and SSH key as the host recorded them."""
    parts = [f"from {lock.client}" if lock.client else "", f"with the key {lock.key}" if lock.key else ""]
    origin = " ".join(part for part in parts if part)
    return one_line(f"the holder came {origin}") if origin else ""


def lock_lines(environment: str, locks: Mapping[str, HostLock], unreachable: Mapping[str, str]) -> list[str]:
    """Return a table of the locks, and for each held lock its origin and advice."""
    head = ("HOST", "HOLDER", "FOR", "AGE", "LEASE", "STEP")
    lines = table([head, *(_row(name, state) for name, state in locks.items())])
    lines += [f"{name}: {origin}" for name, state in locks.items() if state.lock and (origin := _origin(state.lock))]
    lines += [f"{name}: {advice(state, environment)}" for name, state in locks.items() if state.lock or state.step_runs]
    return [*lines, *unreachable_lines(unreachable)]


def lock_json(environment: str, locks: Mapping[str, HostLock], unreachable: Mapping[str, str]) -> dict[str, Any]:
    """Return the report as a JSON object."""
    hosts = [_host_json(name, state, environment) for name, state in locks.items()]
    hosts += [{"host": name, "error": error} for name, error in unreachable.items()]
    return {"environment": environment, "hosts": hosts}


def _host_json(name: str, state: HostLock, environment: str) -> dict[str, Any]:
    if state.lock is None:
        return {"host": name, "free": True, "stage": state.step_runs}
    fields: dict[str, Any] = to_plain(state.lock)
    del fields["token"]
    ages = {"age_seconds": state.now - state.lock.acquired_at, "left_seconds": state.left_seconds}
    marks = {"stage": state.step_runs, "dead": state.dead, "advice": advice(state, environment)}
    return {"host": name, "free": False, **fields, **ages, **marks}
