"""The plan that restarts one service's container where it is. Pure.

The other recoveries are plans that stand already: a release started anew is a deploy of what the host runs, an earlier
release is a rollback.
"""

from __future__ import annotations

from dataclasses import replace

from fabfile.commands import podman, probe
from fabfile.commands.shell import script
from fabfile.model import HostResult, HostState, Rollout
from fabfile.plans import closing
from fabfile.plans.deploy_steps import StepBuilder
from fabfile.plans.step import Change, Plan, ServicePlan, Step
from fabfile.plans.wanted import Wanted

#: What a container that has stopped answering gets to end by itself.
STOP_SECONDS = 2.0


def plan_restart(state: HostState, wanted: Wanted, service: str) -> Plan:
    """End and start the container that the service's flag names, and wait until it answers again."""
    app = wanted.application
    choices = tuple(
        ServicePlan(
            one.name, Change.KEEP, one.image, state.active_color(one.name), one.image, state.active_color(one.name)
        )
        for one in app.services
    )
    plan = Plan(
        host=state.host,
        action=wanted.action,
        release=wanted.release,
        services=choices,
        steps=(_restart(state, wanted, service),),
        home=app.home,
        environment=wanted.environment,
        record=StepBuilder(state, wanted, Rollout(), choices).release(),
        result=HostResult.RECOVERED,
    )
    return replace(plan, finish=(closing.finish(plan, 0),))


def _restart(state: HostState, wanted: Wanted, name: str) -> Step:
    app = wanted.application
    service, color = app.service(name), state.active_color(name)
    answers = probe.watch(
        [probe.own_port(service, color)],
        seconds=0,
        passes=service.gate.passes,
        deadline_seconds=service.gate.deadline_seconds,
        tolerance=probe.PATIENT,
    )
    body = script(podman.restart(podman.container_name(app.name, name, color), STOP_SECONDS), answers, "watch")
    seconds = service.gate.deadline_seconds + STOP_SECONDS + 60
    return Step(f"{name}.restart", f"{name}: restart {color.value} and wait until it answers", body, seconds)
