"""One recovery on this host: a run like any other, with a lock, steps and a line of history.

A redeploy and a rollback are plans of a deploy; this module has the plan of a restart.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from rolling_upgrade.engine import health_gate, locking, observation, podman
from rolling_upgrade.engine.host import Host, LocalHost
from rolling_upgrade.engine.host_run import RunDocument, RunEnd, execute
from rolling_upgrade.engine.journal import GO, PREPARE, Journal, Words
from rolling_upgrade.engine.model import (
    Application,
    Event,
    HostResult,
    HostState,
    Lock,
    Notice,
    Occasion,
    Outcome,
    Phase,
    Release,
    RolloutPolicy,
    exit_code,
    new_run_id,
)
from rolling_upgrade.engine.plan import Change, Plan, ServicePlan, Step, record_failure, record_success
from rolling_upgrade.engine.preflight import Finding
from rolling_upgrade.engine.prune_entry import Mode
from rolling_upgrade.engine.shell import Script, script
from rolling_upgrade.errors import PROGRAM, ExitCode, LockLost, PreflightError
from rolling_upgrade.features.deploy.plan import acquire, plan_deploy
from rolling_upgrade.features.deploy.steps import DeploySpec, release
from rolling_upgrade.features.notify.text import version_changes
from rolling_upgrade.features.prune import retention
from rolling_upgrade.features.rollback import selection
from rolling_upgrade.features.watchdog import outbox, state_store
from rolling_upgrade.features.watchdog.policy import RecoveryAction
from rolling_upgrade.features.watchdog.state_store import Settings, log

OWNER = "watchdog"
PRUNE_SECONDS = 600.0
#: Pause between two messages about recoveries of one service.
MESSAGE_AGAIN_SECONDS = 3600.0
#: Grace period of a container that no longer answers.
STOP_SECONDS = 2.0


def recover(home: Path, action: RecoveryAction, service: str, seconds: float, reason: str) -> ExitCode:
    """Run one recovery of a failure that has lasted `seconds`, and store a message about it in the outbox.

    Raises RollingError if it fails before the first step.
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

    def plan(observed: HostState) -> Plan:
        lock = _lock(new_run_id(), f"{action.value} of {service}: {reason}")
        spec = _live_release(app, observed, settings, lock, service, reason)
        if action is RecoveryAction.RESTART:
            return _plan_restart(observed, spec, service, settings.rollout)
        if target is not None:
            spec = _earlier_release(*target, observed, spec)
        return plan_deploy(observed, spec, settings.rollout)

    started_at = time.time()
    made, end = _execute(home, plan(state), state, app, settings)
    if end.observation:
        state = observation.parse(app.name, settings.host, end.observation)
        made, end = _execute(home, plan(state), state, app, settings)
    error = end.raised
    if error is not None and end.result is HostResult.NOT_STARTED:
        raise error
    if error is not None:
        log(str(error))
    code = exit_code([error if isinstance(error, LockLost) else end.result])
    if code is ExitCode.DONE:
        _notify(home, settings, made, action, service, seconds + time.time() - started_at, reason)
    return code


def _execute(home: Path, plan: Plan, state: HostState, app: Application, settings: Settings) -> tuple[Plan, RunEnd]:
    """Execute the plan in this process."""
    document = RunDocument(plan, locking.basis(state), app.name, settings.rollout.lease_seconds)
    journal = Journal(home, plan.run_id)
    journal.path.mkdir(parents=True)
    with suppress(OSError):
        # For followers of the run.
        (journal.path / "engine.pyz").hardlink_to(sys.argv[0])
    journal.begin()
    return plan, execute(document, journal, Words(PREPARE, GO), _log_event)


def _notify(
    home: Path, settings: Settings, plan: Plan, action: RecoveryAction, service: str, seconds: float, reason: str
) -> None:
    """Put a message about a successful recovery into the outbox; repeated restarts of a service send one an hour."""
    rolled_back = action is RecoveryAction.ROLL_BACK
    if not rolled_back and not message_is_due(home, service):
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
        changes=tuple(version_changes([plan])) if rolled_back else (),
        seconds=seconds,
        cause=reason,
        next_command=f"{PROGRAM} history --env {settings.environment} --hosts {settings.host}",
    )
    outbox.put(home, notice, settings.channels)


def message_is_due(home: Path, service: str) -> bool:
    """Return True at most once per MESSAGE_AGAIN_SECONDS; the marker file's mtime records the last time."""
    path = state_store.directory(home) / f"recovered-{service}"
    with suppress(OSError):
        if 0 <= time.time() - path.stat().st_mtime < MESSAGE_AGAIN_SECONDS:
            return False
    with suppress(OSError):
        path.touch()
    return True


def _plan_restart(state: HostState, spec: DeploySpec, service: str, rollout: RolloutPolicy) -> Plan:
    """Restart the container of a service's active color, and wait until it answers."""
    app = spec.application
    choices = tuple(
        ServicePlan(
            kept.name, Change.KEEP, kept.image, state.active_color(kept.name), kept.image, state.active_color(kept.name)
        )
        for kept in app.services
    )
    record = release(spec, choices)
    return Plan(
        host=state.host,
        action=record.action,
        run_id=record.id,
        services=choices,
        acquire=(acquire(spec, rollout),),
        steps=(_restart_step(state, spec, service),),
        finalize=(record_success(app.home, record),),
        abort=(record_failure(app.home, record),),
        home=app.home,
        environment=spec.environment,
        record=record,
        result=HostResult.RECOVERED,
    )


def _restart_step(state: HostState, spec: DeploySpec, name: str) -> Step:
    app = spec.application
    service, color = app.service(name), state.active_color(name)
    if service.is_worker:
        healthy, condition = health_gate.gate(app, service, color), "has passed its gate"
    else:
        rules, condition = service.gate, "answers"
        healthy = health_gate.wait_for_restart(
            app, [(service, color)], passes=rules.passes, deadline_seconds=rules.deadline_seconds
        )
    restart = podman.restart(podman.container_name(app.name, name, color), STOP_SECONDS)
    body = script(podman.stop_other(app, service, color), restart, healthy)
    seconds = service.gate.deadline_seconds + service.drain.stop_seconds + STOP_SECONDS + 60
    return Step(f"{name}.restart", f"{name}: restart {color.value} and wait until it {condition}", body, seconds)


def _rollback_target(home: Path, state: HostState) -> tuple[Release, Application]:
    """The release to roll back to, and its application. Raises PreflightError if there is none."""
    chosen = selection.choose(state)
    if isinstance(chosen, Finding):
        raise PreflightError(str(chosen))
    app = state_store.definition(home, chosen.id)
    if app is None:
        raise PreflightError(f"{state.host}: the configuration of release {chosen.id} is past its retention.")
    return chosen, app


def _live_release(
    app: Application, state: HostState, settings: Settings, lock: Lock, service: str, reason: str
) -> DeploySpec:
    """The live release, with a new container of the same image and configuration for one service."""
    time = datetime.now(timezone.utc).isoformat(timespec="seconds")
    record = Release(lock.token, time, "recovery", Outcome.GOOD, (), OWNER, reason=reason, workstation=settings.host)
    return DeploySpec(
        environment=settings.environment,
        application=app,
        site=state.site,
        site_hash=state.live_site_hash,
        record=record,
        lock=lock,
        renew=frozenset({service}),
    )


def _earlier_release(target: Release, app: Application, state: HostState, live: DeploySpec) -> DeploySpec:
    """An earlier release in place of the live one. The Nginx site stays: it has both colors of every service."""
    left = selection.current(state)
    return replace(
        live,
        application=app,
        observed=live.application,
        record=replace(live.record, action="rollback", target=target.id, left=left.id if left else ""),
        renew=frozenset(),
    )


def _prune(host: Host, app: Application, state: HostState, settings: Settings) -> ExitCode:
    body = retention.prune(state, app, settings.rollout, Mode.REPORT)
    lock = _lock(new_run_id(), "prune: the host is short of disk space or memory")
    answer = locking.run_under_lock(
        host, app, lock, Script(body), environment=settings.environment, seconds=PRUNE_SECONDS
    )
    log(answer.output_tail)
    return ExitCode.DONE if answer.ok else ExitCode.FAILED


def _lock(run_id: str, reason: str) -> Lock:
    return Lock(run_id, OWNER, platform.node(), os.getpid(), reason, 0, 0)


def _log_event(event: Event) -> None:
    results = {Phase.STARTED: "…", Phase.DONE: "done", Phase.FAILED: "FAILED", Phase.UNDOING: "undoing"}
    detail = f": {event.detail}" if event.detail and event.phase is Phase.FAILED else ""
    log(f"{event.title} {results.get(event.phase, event.phase.value)}{detail}")
