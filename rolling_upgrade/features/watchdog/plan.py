"""The plan that restarts one service's container in place.

The other recoveries use existing plans: a redeploy is a deploy of the live release, a rollback is a rollback.
"""

from __future__ import annotations

from rolling_upgrade.engine import podman, probe
from rolling_upgrade.engine.model import HostResult, HostState, RolloutPolicy
from rolling_upgrade.engine.plan import Change, Plan, ServicePlan, Step, record_failure, record_success
from rolling_upgrade.engine.shell import script
from rolling_upgrade.features.deploy.plan import acquire
from rolling_upgrade.features.deploy.spec import DeploySpec
from rolling_upgrade.features.deploy.steps import StepBuilder

#: Grace period of a container that no longer answers.
STOP_SECONDS = 2.0


def plan_restart(state: HostState, spec: DeploySpec, service: str, rollout: RolloutPolicy) -> Plan:
    """Restart the container of a service's active color, and wait until it answers."""
    app = spec.application
    choices = tuple(
        ServicePlan(
            one.name, Change.KEEP, one.image, state.active_color(one.name), one.image, state.active_color(one.name)
        )
        for one in app.services
    )
    record = StepBuilder(state, spec, rollout, choices).release()
    return Plan(
        host=state.host,
        action=spec.action,
        run_id=spec.run_id,
        services=choices,
        acquire=(acquire(spec, rollout),),
        steps=(_restart(state, spec, service),),
        finalize=(record_success(app.home, record),),
        abort=(record_failure(app.home, record),),
        home=app.home,
        environment=spec.environment,
        record=record,
        result=HostResult.RECOVERED,
    )


def _restart(state: HostState, spec: DeploySpec, name: str) -> Step:
    app = spec.application
    service, color = app.service(name), state.active_color(name)
    answers = probe.watch(
        [probe.candidate_port(service, color)],
        seconds=0,
        passes=service.gate.passes,
        deadline_seconds=service.gate.deadline_seconds,
        tolerance=probe.PATIENT,
    )
    body = script(podman.restart(podman.container_name(app.name, name, color), STOP_SECONDS), answers, "watch")
    seconds = service.gate.deadline_seconds + STOP_SECONDS + 60
    return Step(f"{name}.restart", f"{name}: restart {color.value} and wait until it answers", body, seconds)
