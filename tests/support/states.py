"""Sample host states, and plans made from them, for tests of the planners."""

from __future__ import annotations

from dataclasses import replace

from rolling_upgrade.engine.model import (
    Application,
    Color,
    Container,
    HostState,
    Image,
    Outcome,
    Release,
    RolloutPolicy,
    Service,
    ServiceRelease,
)
from rolling_upgrade.engine.observation import environment_marks
from rolling_upgrade.engine.plan import Plan, ServicePlan
from rolling_upgrade.engine.podman import spec_hash
from rolling_upgrade.engine.site import client as site
from rolling_upgrade.engine.site.schema import dump
from rolling_upgrade.features.deploy.plan import plan_deploy
from rolling_upgrade.features.deploy.steps import DeploySpec
from tests.support.sample import LOCK, application

SITE_HASH = "0123456789abcdef"
#: The history line of the run that is planned.
RUN = Release("r2", "2026-11-23T00:00:00+00:00", "deploy", Outcome.GOOD, (), "ann")
OLD = "sha256:" + "0" * 64


def container(service: Service, color: Color = Color.BLUE, *, app: str = "shop", **changes: object) -> Container:
    """Return the container that a deploy of this service leaves."""
    values: dict[str, object] = {
        "name": f"{app}-{service.name}-{color.value}",
        "service": service.name,
        "color": color,
        "running": True,
        "status": "running",
        "image": service.image,
        "release": "r1",
        "spec": spec_hash(app, service),
    }
    return Container(**(values | changes))  # type: ignore[arg-type]


def environments(app: Application) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """Return the stored environments that a host reports for this application."""
    return tuple(
        (f"{service.name}-{spec_hash(app.name, service)}", tuple(environment_marks(service).items()))
        for service in app.services
    )


def outdated(service: Service, color: Color = Color.BLUE, *, app: str = "shop", **changes: object) -> Container:
    """Return the container of an earlier release, which differs only in its image."""
    old = Image(service.image.repository, "v1", OLD)
    return container(service, color, app=app, **({"image": old} | changes))


def recorded(app: Application, color: Color = Color.BLUE) -> Release:
    """Return the history entry of a successful deploy of this application."""
    services = tuple(
        (
            service.name,
            ServiceRelease(service.image.reference, service.image.digest, color, spec_hash(app.name, service)),
        )
        for service in app.services
    )
    return Release("r1", "2026-11-22T00:00:00+00:00", "deploy", Outcome.GOOD, services)


def fit_facts(app: Application) -> dict[str, str]:
    """Return the facts of a host that passes the preflight of a deploy of this application."""
    tools = ("podman", "nginx", "curl", "ss", "flock", "pgrep", "python3", "sqlite3", "skopeo")
    return {
        **{f"has_{tool}": "yes" for tool in tools},
        "home": "yes",
        "helper": "yes",
        "linger": "yes",
        "helper_sum": "h",
        "site_rules": dump(site.rules(app)),
        "nginx_active": "active",
        "closed": "",
        "free_kib": "50000000",
        "total_kib": "100000000",
        "free_inodes": "1000000",
        "backup_free_kib": "50000000",
        "database_kib": "1000",
    }


def as_wanted(app: Application, color: Color = Color.BLUE) -> HostState:
    """Return the state of an up-to-date host."""
    return HostState(
        "web1",
        containers=tuple(container(service, color, app=app.name) for service in app.services),
        live_site_hash=SITE_HASH,
        releases=(recorded(app, color),),
        environments=environments(app),
    )


def upgradable(app: Application) -> HostState:
    """Return the state of a host on which every service runs an earlier image."""
    return replace(as_wanted(app), containers=tuple(outdated(service, app=app.name) for service in app.services))


def wanted(app: Application, *, force: bool = False) -> DeploySpec:
    return DeploySpec(
        environment="production",
        application=app,
        site=f"# rolling-site: {SITE_HASH}\n",
        site_hash=SITE_HASH,
        record=RUN,
        lock=LOCK,
        force=force,
    )


def plan(state: HostState, app: Application | None = None, *, force: bool = False, bake: float = 10) -> Plan:
    return plan_deploy(state, wanted(app or application(), force=force), RolloutPolicy(bake_seconds=bake))


def ids(found: Plan) -> list[str]:
    """Return the ids of the steps and of the drain, without preparation and record."""
    return [step.id for step in (*found.steps, *found.finalize[:-1])]


def choice(found: Plan, service: str) -> ServicePlan:
    return next(choice for choice in found.services if choice.service == service)


def text(found: Plan, step: str) -> str:
    """Return the script of a step."""
    return next(entry.script.text for entry in (*found.steps, *found.finalize) if entry.id == step)


def undo(found: Plan, step: str) -> str:
    """Return the undo script of a step."""
    script = next(entry.undo for entry in found.steps if entry.id == step)
    assert script is not None
    return script.text
