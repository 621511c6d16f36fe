"""How a run begins on a host: take the lock and look again, in one round trip. Pure."""

from __future__ import annotations

from fabfile.commands import journal, state
from fabfile.commands import lock as locks
from fabfile.commands.journal import BUSY_STATUS, WAIT_SECONDS
from fabfile.commands.shell import Script, quote
from fabfile.model import Application, HostState, Lock
from fabfile.plans.step import Step

LOCK_SECONDS = 240


def lock_and_look(app: Application, lock: Lock, *, lease_seconds: float, dead_token: str = "") -> Script:
    """Acquire the lock, wait for a dead run's last stage to end, then observe: the plan stands on what is now.

    The application is not asked: no plan depends on how it answers, and one that hangs would hold the run up.
    """
    acquire = locks.acquire(app.home, lock, lease_seconds=lease_seconds, dead_token=dead_token)
    wait = f"flock -w {WAIT_SECONDS} -E {BUSY_STATUS} {quote(app.home + '/lock/stage')} true"
    return journal.direct(acquire, wait, state.observation(app, ask=False))


def under_lock(app: Application, lock: Lock, body: Script, *, seconds: float, dead_token: str = "") -> Script:
    """Do something short while no other run may: lock, wait for a dead run's last stage, the body, unlock.

    Prints what the body said and exits with its status; what it says waits for the unlocking, so that a connection that
    drops meanwhile leaves no lock behind.
    """
    text = f"""\
{locks.acquire(app.home, lock, lease_seconds=seconds + WAIT_SECONDS, dead_token=dead_token)}
set +e
said=$(
exec 2>&1
flock -w {WAIT_SECONDS} -E {BUSY_STATUS} {quote(app.home + "/lock/stage")} true || exit
timeout -k 5 {seconds:g} sh /dev/fd/3 3<<'END-OF-THE-BODY' </dev/null
{body.text}
END-OF-THE-BODY
)
status=$?
set -e
{locks.release(app.home, lock.token)}
printf '%s\\n' "$said"
exit "$status\""""
    return journal.direct(Script(text, body.secrets))


def lock_step(app: Application, lock: Lock, *, lease_seconds: float) -> Step:
    """The same as a step, for showing it in a plan."""
    script = lock_and_look(app, lock, lease_seconds=lease_seconds)
    return Step("lock", "take the lock and look again", script, LOCK_SECONDS)


def same(planned: HostState, now: HostState) -> bool:
    """Whether a plan made from the one observation still holds for the other."""
    return _basis(planned) == _basis(now)


def _basis(state: HostState) -> tuple[object, ...]:
    containers = sorted((c.name, c.running, c.release, c.spec, c.image.digest) for c in state.containers)
    releases = [release.id for release in state.releases]
    return (sorted(state.active), containers, state.live_site_hash, releases, state.fact("maintenance"))
