"""Plan a deploy, rollback or redeploy on one host: compare observed and desired state, service by service.

features/deploy/steps.py has the steps and their order.
"""

from __future__ import annotations

import difflib

from rolling_upgrade.engine import jobs, locking, observation, podman
from rolling_upgrade.engine.model import Application, Color, Container, HostResult, HostState, RolloutPolicy, Service
from rolling_upgrade.engine.plan import Change, Plan, ServicePlan, Step, record_failure, record_success
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.features.deploy.steps import DeploySpec, StepBuilder, release
from rolling_upgrade.features.maintenance import plan as page
from rolling_upgrade.features.prune import retention
from rolling_upgrade.features.rollback.selection import content_of

#: The maximum number of changed lines of the Nginx site that a plan shows.
SHOWN_CHANGES = 20
#: The result of a host by action.
_RESULTS = {
    "deploy": HostResult.UPGRADED,
    "rollback": HostResult.ROLLED_BACK,
    "recovery": HostResult.RECOVERED,
}


def plan_deploy(state: HostState, spec: DeploySpec, rollout: RolloutPolicy) -> Plan:
    """Plan the change of each service on a host, and the steps."""
    app, action, run_id = spec.application, spec.record.action, spec.record.id
    choices = tuple(_choose(state, app, service, spec.force or service.name in spec.renew) for service in app.services)
    changed = [choice for choice in choices if choice.change is not Change.KEEP]
    new_site = app.has_site and state.live_site_hash != spec.site_hash
    leftovers = [
        container for container in state.containers if container.running and not _serves(state, app, container)
    ]
    is_current = not (changed or new_site or leftovers or page.differs(state, spec.page) or jobs.differ(state, app))
    recorded = state.last_good.content if state.last_good else frozenset()
    if is_current and recorded == content_of(app):
        return Plan(state.host, action, run_id, choices, home=app.home, environment=spec.environment)
    builder = StepBuilder(state, spec, rollout, choices)
    record, steps = release(spec, choices), builder.steps(new_site)
    final: tuple[Step, ...] = (builder.drain(leftovers),)
    if not app.services:
        # Nothing starts and nothing is verified: the jobs and the last containers of services that moved away are stopped.
        steps, final = (*steps, *final), ()
    recording = record_success(
        app.home,
        record,
        definition=app if action == "deploy" else None,
        cleanup=Script(_cleanup(state, spec, rollout)),
    )
    return Plan(
        host=state.host,
        action=action,
        run_id=run_id,
        services=choices,
        notes=(
            *_notes(app, spec.site if new_site else "", state, leftovers, changed),
            *builder.handovers(),
            *([spec.data.note] if spec.data else []),
            *spec.notes,
        ),
        acquire=(acquire(spec, rollout),),
        prepare=builder.prepare(),
        release=builder.release(),
        steps=steps,
        finalize=(*(spec.data.after if spec.data else ()), *final, recording),
        abort=(record_failure(app.home, record),),
        home=app.home,
        environment=spec.environment,
        record=record,
        result=_RESULTS[action],
    )


def acquire(spec: DeploySpec, rollout: RolloutPolicy) -> Step:
    """Return the step that acquires the host's lock for this run."""
    lease = rollout.lease_seconds + locking.LOCK_SECONDS
    return locking.acquire_step(
        spec.observed or spec.application, spec.lock, lease_seconds=lease, replaceable_token=spec.replaceable_token
    )


def _cleanup(state: HostState, spec: DeploySpec, rollout: RolloutPolicy) -> str:
    app = spec.application
    expired = retention.prune_files(state, app, retention.kept(state, app, rollout, spec.record.id))
    return "\n".join((expired, spec.data.cleanup)) if spec.data else expired


def _choose(state: HostState, app: Application, service: Service, force: bool) -> ServicePlan:
    color = state.active_color(service.name)
    current = state.container(service.name, color)
    if current is None:
        return ServicePlan(service.name, Change.FIRST, service.image, color, reasons=("nothing runs yet",))
    reasons = _reasons(current, app, service, force)
    change = Change.FIRST if not current.running else Change.REPLACE if reasons else Change.KEEP
    return ServicePlan(
        service=service.name,
        change=change,
        wanted=service.image,
        color=_candidate_color(state, service, current, reasons),
        current=current.image,
        current_color=color,
        env_changes=_env_changes(state, current, service),
        reasons=reasons,
    )


def _candidate_color(state: HostState, service: Service, current: Container, reasons: tuple[str, ...]) -> Color:
    """Return the color of the desired container: never the color of a running container that may serve.

    The other color of an exclusive service never serves. So its active container is kept for the undo, even if a killed
    run has stopped it and left a candidate running.
    """
    other = state.container(current.service, current.color.other)
    if not reasons:
        return current.color
    if not current.running and other is not None and other.running and not service.is_exclusive:
        return current.color
    return current.color.other


def _reasons(current: Container, app: Application, service: Service, force: bool) -> tuple[str, ...]:
    reasons = []
    if current.image.digest != service.image.digest:
        reasons.append("the image differs")
    if current.spec != podman.spec_hash(app.name, service):
        reasons.append("the configuration differs")
    if not current.running:
        reasons.append(f"its container is not running ({current.status})")
    if force and not reasons:
        reasons.append("forced")
    return tuple(reasons)


def _env_changes(state: HostState, current: Container, service: Service) -> tuple[str, ...]:
    """Return `+KEY`, `-KEY` and `~KEY` for added, removed and changed keys, without values."""
    before = state.environment(service.name, current.spec)
    recorded = service.recorded
    after = state.environment(service.name, recorded.spec) if recorded else observation.environment_marks(service)
    if before is None or after is None:
        return ()
    return tuple(
        f"{'+' if key not in before else '-' if key not in after else '~'}{key}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    )


def _serves(state: HostState, app: Application, container: Container) -> bool:
    is_current = container.service in {service.name for service in app.services}
    return is_current and container.color is state.active_color(container.service)


def _notes(
    app: Application, new_site: str, state: HostState, leftovers: list[Container], changed: list[ServicePlan]
) -> tuple[str, ...]:
    notes = []
    if new_site:
        change = "changes" if state.live_site_hash else "is not live yet"
        notes.append(f"the Nginx site {change}: it will be installed and Nginx reloaded")
        notes += _site_changes(state.site, new_site)
    notes += [f"{container.name} is running but not active: it will be drained and stopped" for container in leftovers]
    if state.site and not app.has_site:
        notes.append("this host runs no service with a port any more: setup removes its Nginx site")
    if app.services and not changed:
        notes.append("every service is up to date: the release will be verified and recorded")
    return tuple(notes)


def _site_changes(before: str, after: str) -> list[str]:
    """Return the removed and added lines, without the hash, which always changes; empty for a first text."""
    if not before:
        return []
    old, new = ([row for row in text.splitlines() if not _is_hash(row)] for text in (before, after))
    rows = [row for row in difflib.unified_diff(old, new, n=0, lineterm="") if row[:2] not in {"--", "++", "@@"}]
    more = [f"… and {len(rows) - SHOWN_CHANGES} more lines"] if len(rows) > SHOWN_CHANGES else []
    return [f"Nginx {row[0]} {row[1:].strip()}" for row in rows[:SHOWN_CHANGES]] + more


def _is_hash(row: str) -> bool:
    return row.startswith("# rolling-") or row.strip().startswith('return 200 "')
