"""What a deploy or a rollback does with each service of one host: from what is observed and wanted to a plan. Pure.

Which steps that takes, and in which order, is in plans/deploy_steps.py.
"""

from __future__ import annotations

import difflib
from dataclasses import replace

from fabfile.commands import podman
from fabfile.commands.shell import Script
from fabfile.model import Application, Color, Container, HostResult, HostState, Rollout, Service
from fabfile.plans import closing, page, retention
from fabfile.plans.deploy_steps import StepBuilder
from fabfile.plans.step import Change, Plan, ServicePlan
from fabfile.plans.wanted import Wanted

#: How many changed lines of the Nginx site a plan shows.
SHOWN_CHANGES = 20
#: What a host's line says when a run of that kind went well.
_RESULTS = {
    "deploy": HostResult.UPGRADED,
    "rollback": HostResult.ROLLED_BACK,
    "recovery": HostResult.RECOVERED,
}


def plan_deploy(state: HostState, wanted: Wanted, rollout: Rollout) -> Plan:
    """Decide what to do with each service of a host, and in which steps."""
    app = wanted.application
    choices = tuple(
        _choose(state, app, service, wanted.force or service.name in wanted.renew) for service in app.services
    )
    changed = [choice for choice in choices if choice.change is not Change.KEEP]
    new_site = state.live_site_hash != wanted.site_hash
    leftovers = [
        container for container in state.containers if container.running and not _serves(state, app, container)
    ]
    nothing = not changed and not new_site and not leftovers and not page.differs(state, wanted.page)
    if nothing and _is_recorded(state, app):
        return Plan(state.host, wanted.action, wanted.release, choices, home=app.home, environment=wanted.environment)
    builder = StepBuilder(state, wanted, rollout, choices)
    plan = Plan(
        host=state.host,
        action=wanted.action,
        release=wanted.release,
        services=choices,
        notes=(*_notes(wanted.site if new_site else "", state, leftovers, changed), *_data_note(wanted)),
        prepare=builder.prepare(),
        steps=builder.steps(new_site),
        home=app.home,
        environment=wanted.environment,
        record=builder.release(),
        tidy=Script(_tidy(state, wanted, rollout)),
        definition=app if wanted.action == "deploy" else None,
        result=_RESULTS[wanted.action],
    )
    return replace(plan, finish=(builder.drain(leftovers), closing.finish(plan, 0)))


def _data_note(wanted: Wanted) -> tuple[str, ...]:
    return (wanted.data.note,) if wanted.data else ()


def _tidy(state: HostState, wanted: Wanted, rollout: Rollout) -> str:
    app = wanted.application
    past = retention.tidy(state, app, retention.kept(state, app, rollout, wanted.release))
    return "\n".join((past, wanted.data.tidy)) if wanted.data else past


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
        color=_place(state, current, reasons),
        current=current.image,
        current_color=color,
        env_changes=_env_changes(current, service),
        reasons=reasons,
    )


def _place(state: HostState, current: Container, reasons: tuple[str, ...]) -> Color:
    """Where the wanted container goes: never onto one that serves, be it as Nginx's backup for a dead active color."""
    other = state.container(current.service, current.color.other)
    if not reasons or (not current.running and other is not None and other.running):
        return current.color
    return current.color.other


def _reasons(current: Container, app: Application, service: Service, force: bool) -> tuple[str, ...]:
    reasons = []
    if current.image.digest != service.image.digest:
        reasons.append("another image")
    if current.spec != podman.spec_hash(app.name, service):
        reasons.append("another configuration")
    if not current.running:
        reasons.append(f"it does not run ({current.status})")
    if force and not reasons:
        reasons.append("forced")
    return tuple(reasons)


def _env_changes(current: Container, service: Service) -> tuple[str, ...]:
    """`+KEY`, `-KEY` and `~KEY` for keys that came, went and changed; what they hold is never said."""
    before, after = dict(current.env_fingerprints), dict(podman.env_fingerprints(service))
    return tuple(
        f"{'+' if key not in before else '-' if key not in after else '~'}{key}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    )


def _serves(state: HostState, app: Application, container: Container) -> bool:
    wanted = container.service in {service.name for service in app.services}
    return wanted and container.color is state.active_color(container.service)


def _is_recorded(state: HostState, app: Application) -> bool:
    last = state.last_good
    if last is None:
        return False
    return last.content == content(app)


def content(app: Application) -> frozenset[tuple[str, str, str]]:
    """What a release of this application would run, as `Release.content` says it."""
    return frozenset(
        (service.name, service.image.digest, podman.spec_hash(app.name, service)) for service in app.services
    )


def _notes(new_site: str, state: HostState, leftovers: list[Container], changed: list[ServicePlan]) -> tuple[str, ...]:
    notes = []
    if new_site:
        what = "changes" if state.live_site_hash else "is not live yet"
        notes.append(f"the Nginx site text {what}: it is installed and Nginx reloaded")
        notes += _site_changes(state.site, new_site)
    notes += [f"{container.name} runs without serving: it is drained and stopped" for container in leftovers]
    if not changed:
        notes.append("every service is as wanted: the release is verified and recorded")
    return tuple(notes)


def _site_changes(before: str, after: str) -> list[str]:
    """The lines that go and come, without the hash that changes with any of them; nothing for a first text."""
    if not before:
        return []
    old, new = ([row for row in text.splitlines() if not _is_hash(row)] for text in (before, after))
    rows = [row for row in difflib.unified_diff(old, new, n=0, lineterm="") if row[:2] not in {"--", "++", "@@"}]
    rest = [f"… and {len(rows) - SHOWN_CHANGES} more lines"] if len(rows) > SHOWN_CHANGES else []
    return [f"Nginx {row[0]} {row[1:].strip()}" for row in rows[:SHOWN_CHANGES]] + rest


def _is_hash(row: str) -> bool:
    return row.startswith("# rolling-site:") or row.strip().startswith('return 200 "')
