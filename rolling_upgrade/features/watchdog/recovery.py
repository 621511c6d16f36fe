"""One recovery on this host: a run like any other, with a lock, steps and a line of history."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from rolling_upgrade.engine import lock as locks
from rolling_upgrade.engine import locking, observation, stage
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.exit_code import exit_code
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.local_host import LocalHost
from rolling_upgrade.engine.model import (
    Application,
    Event,
    HostState,
    Lock,
    Notice,
    Occasion,
    Phase,
    Release,
)
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.engine.preflight import Finding
from rolling_upgrade.engine.prune import Mode
from rolling_upgrade.engine.rollout import HostRun, roll_out
from rolling_upgrade.engine.run_id import new_run_id
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import PROGRAM, ExitCode, PreflightError
from rolling_upgrade.features.deploy.plan import plan_deploy
from rolling_upgrade.features.deploy.spec import DeploySpec
from rolling_upgrade.features.notify.changes import version_changes
from rolling_upgrade.features.prune import plan as retention
from rolling_upgrade.features.rollback import selection
from rolling_upgrade.features.watchdog import outbox, state_store
from rolling_upgrade.features.watchdog.plan import plan_restart
from rolling_upgrade.features.watchdog.policy import RecoveryAction
from rolling_upgrade.features.watchdog.state_store import Settings, log

OWNER = "watchdog"
PRUNE_SECONDS = 600.0
#: Pause between two messages about recoveries of one service.
MESSAGE_AGAIN_SECONDS = 3600.0


def recover(home: Path, action: RecoveryAction, service: str, seconds: float, reason: str) -> ExitCode:
    """Run one recovery of a failure that has lasted `seconds`, and put a message about it into the outbox.

    Raises RollingError where nothing was started.
    """
    settings = state_store.load_settings(home)
    app = state_store.live_application(home, state_store.recent_releases(home))
    if app is None:
        raise PreflightError(f"{settings.host}: there is no release to recover.", next_step=f"{PROGRAM} deploy")
    host = LocalHost(settings.host)
    state = observation.observe(host, app, probe=False)
    if action is RecoveryAction.PRUNE:
        return _prune(host, app, state, settings)
    target = _rollback_target(home, state) if action is RecoveryAction.ROLL_BACK else None
    context = _run(settings)
    started_at = context.clock()
    lock = _lock(context, f"{action.value} of {service}: {reason}")

    def plan(seen: HostState) -> Plan:
        if action is RecoveryAction.RESTART:
            same = _same_release(app, seen, settings, context, lock, service, reason)
            return plan_restart(seen, same, service, settings.rollout)
        if target is not None:
            earlier = replace(_earlier_release(*target, seen, settings, context, lock, reason), observed=app)
            return plan_deploy(seen, earlier, settings.rollout)
        return plan_deploy(seen, _same_release(app, seen, settings, context, lock, service, reason), settings.rollout)

    host_run = HostRun(host, app, state, plan(state))
    outcomes = roll_out([host_run], lambda _, seen: plan(seen), settings.rollout, context)
    for outcome in outcomes:
        if outcome.error is not None:
            log(str(outcome.error))
    code = exit_code(outcome.verdict for outcome in outcomes)
    if code is ExitCode.DONE:
        _notify(home, settings, host_run.plan, action, service, seconds + context.clock() - started_at, reason)
    return code


def _notify(
    home: Path, settings: Settings, plan: Plan, action: RecoveryAction, service: str, seconds: float, reason: str
) -> None:
    """Put a message about a successful recovery into the outbox; repeated restarts of a service send one an hour."""
    rolled_back = action is RecoveryAction.ROLL_BACK
    if not rolled_back and not outbox.once_per_interval(home, service, MESSAGE_AGAIN_SECONDS):
        return
    notice = Notice(
        Occasion.RECOVERY_DONE,
        settings.app,
        settings.environment,
        plan.run_id,
        time.time(),
        hosts=(settings.host,),
        who=OWNER,
        target=action.value,
        check=service,
        passages=tuple(version_changes([plan])) if rolled_back else (),
        seconds=seconds,
        cause=reason,
        next_command=f"{PROGRAM} history --env {settings.environment} --hosts {settings.host}",
    )
    outbox.put(home, notice, settings.channels)


def _rollback_target(home: Path, state: HostState) -> tuple[Release, Application]:
    """The release to roll back to, and its application. Raises PreflightError where there is none."""
    chosen = selection.choose(state)
    if isinstance(chosen, Finding):
        raise PreflightError(str(chosen))
    app = state_store.definition(home, chosen.id)
    if app is None:
        raise PreflightError(f"{state.host}: the configuration of release {chosen.id} is past its retention.")
    return chosen, app


def _same_release(
    app: Application, state: HostState, settings: Settings, context: RunContext, lock: Lock, service: str, reason: str
) -> DeploySpec:
    """The live release, with a new container of the same image and configuration for one service."""
    return DeploySpec(
        environment=settings.environment,
        application=app,
        site=state.site,
        site_hash=state.live_site_hash,
        run_id=context.run_id,
        time=_now(),
        owner=OWNER,
        lock=lock,
        renew=frozenset({service}),
        action="recovery",
        workstation=settings.host,
        reason=reason,
    )


def _earlier_release(
    target: Release,
    app: Application,
    state: HostState,
    settings: Settings,
    context: RunContext,
    lock: Lock,
    reason: str,
) -> DeploySpec:
    """An earlier release. The Nginx site stays: it has both colors of every service."""
    left = selection.current(state)
    spec = _same_release(app, state, settings, context, lock, "", reason)
    return replace(spec, action="rollback", renew=frozenset(), target=target.id, left=left.id if left else "")


def _prune(host: Host, app: Application, state: HostState, settings: Settings) -> ExitCode:
    body = retention.prune(state, app, settings.rollout, Mode.TELL)
    lock = _lock(_run(settings), "prune: the host is short of room")
    script = locking.under_lock(app, lock, Script(body), seconds=PRUNE_SECONDS)
    answer = host.run(script, timeout_seconds=PRUNE_SECONDS + stage.WAIT_SECONDS)
    if answer.status == locks.HELD_STATUS:
        raise locking.held_error(host.name, None, settings.environment, state.now)
    log(answer.output_tail)
    return ExitCode.DONE if answer.ok else ExitCode.FAILED


def _run(settings: Settings) -> RunContext:
    return RunContext(new_run_id(), settings.rollout.lease_seconds, _log_event, time.time, time.sleep)


def _lock(context: RunContext, reason: str) -> Lock:
    return Lock(context.run_id, OWNER, platform.node(), os.getpid(), reason, 0, 0)


def _log_event(event: Event) -> None:
    words = {Phase.STARTED: "…", Phase.DONE: "done", Phase.FAILED: "FAILED", Phase.UNDOING: "undoing"}
    detail = f": {event.detail}" if event.detail and event.phase is Phase.FAILED else ""
    log(f"{event.title} {words.get(event.phase, event.phase.value)}{detail}")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
