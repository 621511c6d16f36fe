"""One recovery on this host: a run like any other, with a lock, stages and a line in the history."""

from __future__ import annotations

import os
import platform
import secrets
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from fabfile.commands import journal
from fabfile.commands import lock as locks
from fabfile.commands.gone import Mode
from fabfile.commands.shell import Script
from fabfile.errors import ExitCode, LockHeld, PreflightError
from fabfile.model import Application, Event, HostResult, HostState, Lock, Notice, Occasion, Phase, Release
from fabfile.model.watch import Act
from fabfile.plans import opening, recovery, retention, rollback
from fabfile.plans.deploy import plan_deploy
from fabfile.plans.passages import passages
from fabfile.plans.preflight import Finding
from fabfile.plans.step import Plan
from fabfile.plans.wanted import Wanted
from fabfile.remote import locking, observe
from fabfile.remote.execute import Run
from fabfile.remote.host import Host
from fabfile.remote.local_host import LocalHost
from fabfile.remote.rollout import Ending, Member, roll_out
from fabfile.watchdog import keeping, outbox
from fabfile.watchdog.keeping import Settings, say

OWNER = "watchdog"
PRUNE_SECONDS = 600.0
#: How soon a service's next restart is told of.
TOLD_AGAIN_SECONDS = 3600.0


def recover(home: Path, act: Act, service: str, seconds: float, reason: str) -> ExitCode:
    """Do what was decided about a trouble that has lasted so many seconds, and have people told.

    Raises RollingError when nothing was begun.
    """
    settings = keeping.load(home)
    found = keeping.running(home, keeping.history(home))
    if found is None:
        raise PreflightError(f"{settings.host}: there is no release to recover.", next_step="inv deploy")
    _, app = found
    host = LocalHost(settings.host)
    state = observe.observe(host, app, ask=False)
    if act is Act.PRUNE:
        return _prune(host, app, state, settings)
    target = _target(home, state) if act is Act.ROLL_BACK else None
    run = _run(settings)
    began = run.clock()

    def plan(seen: HostState) -> Plan:
        if act is Act.RESTART:
            return recovery.plan_restart(seen, _again(app, seen, settings, run, service, reason), service)
        if target is not None:
            return plan_deploy(seen, _back(*target, seen, settings, run, reason), settings.rollout)
        return plan_deploy(seen, _again(app, seen, settings, run, service, reason), settings.rollout)

    lock = _lock(run, f"{act.value} of {service}: {reason}")
    member = Member(host, app, state, plan(state))
    endings = roll_out([member], lock, {}, lambda _, seen: plan(seen), settings.rollout, run)
    code = _exit_code(endings)
    if code is ExitCode.DONE:
        _tell_people(home, settings, member.plan, act, service, seconds + run.clock() - began, reason)
    return code


def _tell_people(
    home: Path, settings: Settings, plan: Plan, act: Act, service: str, seconds: float, reason: str
) -> None:
    """One message for a recovery that helped; what is restarted again and again is not told each time."""
    rolled_back = act is Act.ROLL_BACK
    if not rolled_back and not outbox.first_lately(home, service, TOLD_AGAIN_SECONDS):
        return
    notice = Notice(
        Occasion.RECOVERY_DONE,
        settings.app,
        settings.environment,
        plan.release,
        time.time(),
        hosts=(settings.host,),
        who=OWNER,
        target=act.value,
        check=service,
        passages=tuple(passages([plan])) if rolled_back else (),
        seconds=seconds,
        cause=reason,
        next_command=f"inv history --env {settings.environment} --hosts {settings.host}",
    )
    outbox.put(home, notice, settings.channels)


def _target(home: Path, state: HostState) -> tuple[Release, Application]:
    """The release to go back to, with what it is made of. Raises PreflightError when there is none."""
    chosen = rollback.choose(state)
    if isinstance(chosen, Finding):
        raise PreflightError(str(chosen))
    made_of = keeping.defined(home, chosen.id)
    if made_of is None:
        raise PreflightError(f"{state.host}: the configuration of release {chosen.id} is past its retention.")
    return chosen, made_of


def _again(app: Application, state: HostState, settings: Settings, run: Run, service: str, reason: str) -> Wanted:
    """What runs, once more: one service gets a new container of the same image and configuration."""
    return Wanted(
        environment=settings.environment,
        application=app,
        site=state.site,
        site_hash=state.live_site_hash,
        release=run.release,
        time=_now(),
        owner=OWNER,
        renew=frozenset({service}),
        action="recovery",
        workstation=settings.host,
        reason=reason,
    )


def _back(target: Release, app: Application, state: HostState, settings: Settings, run: Run, reason: str) -> Wanted:
    """The earlier release; the Nginx site stays as it is, it holds both colors of every service."""
    left = rollback.current(state)
    wanted = _again(app, state, settings, run, "", reason)
    return replace(wanted, action="rollback", renew=frozenset(), target=target.id, left=left.id if left else "")


def _prune(host: Host, app: Application, state: HostState, settings: Settings) -> ExitCode:
    body = retention.prune(state, app, settings.rollout, Mode.TELL)
    lock = _lock(_run(settings), "prune: the host is short of room")
    script = opening.under_lock(app, lock, Script(body), seconds=PRUNE_SECONDS)
    answer = host.run(script, timeout_seconds=PRUNE_SECONDS + journal.WAIT_SECONDS)
    if answer.status == locks.HELD_STATUS:
        raise locking.held(host.name, None, settings.environment, state.now)
    say(answer.last_words)
    return ExitCode.DONE if answer.ok else ExitCode.FAILED


def _run(settings: Settings) -> Run:
    release = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    return Run(release, settings.rollout.lease_seconds, _tell, time.time, time.sleep)


def _lock(run: Run, reason: str) -> Lock:
    return Lock(run.release, OWNER, platform.node(), os.getpid(), reason, 0, 0)


def _tell(event: Event) -> None:
    words = {Phase.STARTED: "…", Phase.DONE: "done", Phase.FAILED: "FAILED", Phase.UNDOING: "undoing"}
    detail = f": {event.detail}" if event.detail and event.phase is Phase.FAILED else ""
    say(f"{event.title} {words.get(event.phase, event.phase.value)}{detail}")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _exit_code(endings: list[Ending]) -> ExitCode:
    for ending in endings:
        if ending.error is not None:
            say(str(ending.error))
    results = {ending.summary.result for ending in endings}
    if results <= {*HostResult.changed(), HostResult.UNCHANGED}:
        return ExitCode.DONE
    if any(isinstance(ending.error, LockHeld) for ending in endings):
        return ExitCode.LOCKED
    return ExitCode.UNDO_FAILED if HostResult.UNDO_FAILED in results else ExitCode.FAILED
