"""States of a host and plans made from them, shared by the tests of the planners."""

from __future__ import annotations

from dataclasses import replace

from fabfile.commands.podman import env_fingerprints, spec_hash
from fabfile.model import (
    Application,
    Color,
    Container,
    HostState,
    Image,
    Outcome,
    Release,
    Rollout,
    Service,
    ServiceRelease,
)
from fabfile.plans.deploy import plan_deploy
from fabfile.plans.step import Plan, ServicePlan
from fabfile.plans.wanted import Wanted
from tests.commands.sample import application

SITE_HASH = "0123456789abcdef"
OLD = "sha256:" + "0" * 64


def container(service: Service, color: Color = Color.BLUE, **changes: object) -> Container:
    """The service's container as a deploy of exactly this service leaves it."""
    values: dict[str, object] = {
        "name": f"shop-{service.name}-{color.value}",
        "service": service.name,
        "color": color,
        "running": True,
        "status": "running",
        "image": service.image,
        "release": "r1",
        "spec": spec_hash("shop", service),
        "env_fingerprints": env_fingerprints(service),
    }
    return Container(**(values | changes))  # type: ignore[arg-type]


def outdated(service: Service, color: Color = Color.BLUE, **changes: object) -> Container:
    """The service's container of an earlier release: another image, all else equal."""
    old = Image(service.image.repository, "v1", OLD)
    return container(service, color, **({"image": old} | changes))


def recorded(app: Application, color: Color = Color.BLUE) -> Release:
    """The history line of a good deploy of this application."""
    services = tuple(
        (
            service.name,
            ServiceRelease(service.image.reference, service.image.digest, color, spec_hash(app.name, service)),
        )
        for service in app.services
    )
    return Release("r1", "2026-11-22T00:00:00+00:00", "deploy", Outcome.GOOD, services)


def as_wanted(app: Application) -> HostState:
    """A host on which nothing is left to do."""
    return HostState(
        "web1",
        containers=tuple(container(service) for service in app.services),
        live_site_hash=SITE_HASH,
        releases=(recorded(app),),
    )


def upgradable(app: Application) -> HostState:
    """A host on which every service runs an earlier image."""
    return replace(as_wanted(app), containers=tuple(outdated(service) for service in app.services))


def wanted(app: Application, *, force: bool = False) -> Wanted:
    return Wanted(
        environment="production",
        application=app,
        site=f"# rolling-site: {SITE_HASH}\n",
        site_hash=SITE_HASH,
        release="r2",
        time="2026-11-23T00:00:00+00:00",
        owner="ann",
        force=force,
    )


def plan(state: HostState, app: Application | None = None, *, force: bool = False, bake: float = 10) -> Plan:
    return plan_deploy(state, wanted(app or application(), force=force), Rollout(bake_seconds=bake))


def ids(found: Plan) -> list[str]:
    """The ids of the steps and of the drain that follows them, without those of prepare and the record."""
    return [step.id for step in (*found.steps, *found.finish[:-1])]


def choice(found: Plan, service: str) -> ServicePlan:
    return next(choice for choice in found.services if choice.service == service)


def text(found: Plan, step: str) -> str:
    """The script of one step."""
    return next(one.script.text for one in (*found.steps, *found.finish) if one.id == step)


def undo(found: Plan, step: str) -> str:
    """The undo of one step."""
    script = next(one.undo for one in found.steps if one.id == step)
    assert script is not None
    return script.text
