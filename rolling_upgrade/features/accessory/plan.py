"""Plan what a task does with the accessories of one host.

An accessory has one container, so its change is a short stop. A container that does not become healthy is replaced by
the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from rolling_upgrade.engine import accessory as containers
from rolling_upgrade.engine import lock_file, locking, podman
from rolling_upgrade.engine.model import (
    Accessory,
    AccessoryContainer,
    Application,
    HostResult,
    HostState,
    Image,
    Lock,
    short_digest,
)
from rolling_upgrade.engine.plan import Plan, Step
from rolling_upgrade.engine.shell import script
from rolling_upgrade.errors import PROGRAM

PULL_SECONDS = 1800
#: The time of Podman's own work in a step: creating, renaming or removing a container.
PODMAN_SECONDS = 60


class Action(str, Enum):
    """What a task does with accessories."""

    UP = "up"
    RESTART = "restart"
    UPGRADE = "upgrade"
    DOWN = "down"


@dataclass(frozen=True)
class AccessorySpec:
    """The task of one host: the chosen accessories with their digests, and the run.

    Attributes:
        accessories: the chosen ones of this host; a task that removes has those that are no longer declared in `removed`.
        removed: the names of the accessories to remove.
        data: whether their volumes are removed too.
        save: a step before an upgrade that saves the data; None without data to save.
    """

    action: Action
    application: Application
    environment: str
    run_id: str
    lock: Lock
    lease_seconds: float
    accessories: tuple[Accessory, ...] = ()
    removed: tuple[str, ...] = ()
    data: bool = False
    replaceable_token: str = ""
    save: Step | None = None
    notes: tuple[str, ...] = ()


def changed(accessory: Accessory, container: AccessoryContainer | None, app: Application) -> tuple[str, ...]:
    """Return how the running container differs from the declared accessory; empty if an upgrade has nothing to do."""
    if container is None:
        return ("it is not up",)
    found = []
    if accessory.image.digest and accessory.image.digest != container.image.digest:
        new = f"{accessory.image.reference} ({short_digest(accessory.image.digest)})"
        found.append(f"{container.image.reference} ({short_digest(container.image.digest)}) → {new}")
    elif accessory.image.reference != container.image.reference:
        found.append(f"{container.image.reference} → {accessory.image.reference}")
    if containers.spec_hash(app, accessory) != container.spec:
        found.append("its definition")
    return tuple(found)


def plan(state: HostState, spec: AccessorySpec) -> Plan:
    """Plan the task on one host; a plan without steps has nothing to do."""
    builder = {
        Action.UP: _up,
        Action.RESTART: _restart,
        Action.UPGRADE: _upgrade,
        Action.DOWN: _down,
    }[spec.action]
    parts = builder(state, spec)
    app, lease = spec.application, spec.lease_seconds + locking.LOCK_SECONDS
    unlock = Step("unlock", "release the lock", script(lock_file.release(app.home, spec.run_id)), PODMAN_SECONDS)
    acquire = locking.acquire_step(app, spec.lock, lease_seconds=lease, replaceable_token=spec.replaceable_token)
    return Plan(
        host=state.host,
        action=f"accessory.{spec.action.value}",
        run_id=spec.run_id,
        notes=(*parts.notes, *(spec.notes if parts.steps else ())),
        acquire=(acquire,),
        prepare=parts.prepare,
        steps=parts.steps,
        finalize=(*parts.finalize, unlock),
        abort=(replace(unlock, id="abandon"),),
        home=app.home,
        environment=spec.environment,
        result=HostResult.CHANGED,
    )


@dataclass(frozen=True)
class _Parts:
    """The parts of a plan that differ between the tasks."""

    steps: tuple[Step, ...] = ()
    prepare: tuple[Step, ...] = ()
    finalize: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()


def _up(state: HostState, spec: AccessorySpec) -> _Parts:
    """Create what is missing and start what is stopped. A running accessory stays as it is."""
    app, steps, notes, new = spec.application, [], [], []
    for accessory in spec.accessories:
        container = state.accessory(accessory.name)
        if container is None:
            new.append(accessory)
            steps.append(_create(app, accessory))
            notes.append(f"{accessory.name}: new, {_described(accessory)}")
            continue
        if not container.running:
            steps.append(_start(app, accessory))
            notes.append(f"{accessory.name}: stopped, is started")
        if difference := changed(accessory, container, app):
            hint = f"{PROGRAM} accessory.upgrade --env {spec.environment} --name {accessory.name}"
            notes.append(f"{accessory.name}: differs from its container ({', '.join(difference)}); it stays. {hint}")
    return _Parts(tuple(steps), _pull(new), notes=tuple(notes))


def _restart(state: HostState, spec: AccessorySpec) -> _Parts:
    app = spec.application
    present = [accessory for accessory in spec.accessories if state.accessory(accessory.name)]
    steps = []
    for accessory in present:
        body = script(
            containers.stop_container(app, accessory.name, accessory.stop_seconds),
            containers.start_container(app, accessory.name),
            containers.wait_until_healthy(app, accessory),
        )
        undo = script(containers.start_container(app, accessory.name))
        seconds = accessory.stop_seconds + accessory.deadline_seconds + PODMAN_SECONDS
        title = f"{accessory.name}: restart and wait until it is healthy"
        steps.append(Step(f"{accessory.name}.restart", title, body, seconds, undo, f"{accessory.name}: start"))
    return _Parts(tuple(steps), notes=tuple(f"{one.name}: is stopped and started again" for one in present))


def _upgrade(state: HostState, spec: AccessorySpec) -> _Parts:
    """Replace each container that differs; create those that are missing."""
    app, steps, notes, finalize, new = spec.application, [], [], [], []
    for accessory in spec.accessories:
        container = state.accessory(accessory.name)
        difference = changed(accessory, container, app)
        if not difference:
            continue
        new.append(accessory)
        if container is None:
            steps.append(_create(app, accessory))
            notes.append(f"{accessory.name}: new, {_described(accessory)}")
            continue
        steps += [_keep(app, accessory), replace(_create(app, accessory), undo=None)]
        finalize.append(_forget(app, accessory))
        notes.append(f"{accessory.name}: {', '.join(difference)}; it stops until the new container is healthy")
    replaced = bool(finalize) and spec.save is not None
    leftovers = [
        containers.remove_previous(app, accessory.name) for accessory in new if state.accessory(accessory.name)
    ]
    prepare = (*_pull(new, leftovers), *((spec.save,) if replaced and spec.save else ()))
    return _Parts(tuple(steps), prepare, tuple(finalize), tuple(notes))


def _down(state: HostState, spec: AccessorySpec) -> _Parts:
    app, steps, finalize, notes = spec.application, [], [], []
    declared = {accessory.name: accessory for accessory in spec.accessories}
    for name in spec.removed:
        container = state.accessory(name)
        if container is None and name not in state.supposed_accessories:
            continue
        seconds = declared[name].stop_seconds if name in declared else Accessory.stop_seconds
        stop = script(containers.stop_container(app, name, seconds))
        undo = script(containers.start_container(app, name)) if container and container.running else None
        steps.append(
            Step(f"{name}.stop", f"{name}: stop", stop, seconds + PODMAN_SECONDS, undo, f"{name}: start again")
        )
        what = "its container and its volumes" if spec.data else "its container"
        remove = script(containers.remove(app, name, data=spec.data))
        finalize.append(Step(f"{name}.remove", f"{name}: remove {what}", remove, PODMAN_SECONDS))
        kept = "" if spec.data else "; its volumes stay"
        notes.append(f"{name}: {what} is removed{kept}" if not spec.data else f"{name}: {what} are removed")
    return _Parts(tuple(steps), finalize=tuple(finalize), notes=tuple(notes))


def _described(accessory: Accessory) -> str:
    digest = f" ({short_digest(accessory.image.digest)})" if accessory.image.digest else ""
    ports = [f"{port.address}:{port.host_port}" for port in accessory.ports]
    return f"{accessory.image.reference}{digest}" + (f", published on {', '.join(ports)}" if ports else "")


def _pull(accessories: Sequence[Accessory], leftovers: Sequence[str] = ()) -> tuple[Step, ...]:
    """Pull the images, and check that their data has a volume, before anything stops.

    `leftovers` remove the containers that earlier upgrades have kept: the undo must not take one for the former container.
    """
    if not accessories:
        return ()
    images: list[Image] = [accessory.image for accessory in accessories]
    checks = [containers.require_volumes(accessory) for accessory in accessories]
    return (Step("pull", "pull the images", script(podman.pull(images), *checks, *leftovers), PULL_SECONDS),)


def _create(app: Application, accessory: Accessory) -> Step:
    """Create a container. After an upgrade, the undo of `_keep` removes it."""
    body = script(containers.create(app, accessory), containers.wait_until_healthy(app, accessory))
    undo = script(containers.remove(app, accessory.name, data=False))
    seconds = accessory.deadline_seconds + PODMAN_SECONDS
    title = f"{accessory.name}: start a container and wait until it is healthy"
    return Step(f"{accessory.name}.create", title, body, seconds, undo, f"{accessory.name}: remove the container")


def _start(app: Application, accessory: Accessory) -> Step:
    body = script(containers.start_container(app, accessory.name), containers.wait_until_healthy(app, accessory))
    undo = script(containers.stop_container(app, accessory.name, accessory.stop_seconds))
    seconds = accessory.deadline_seconds + PODMAN_SECONDS
    title = f"{accessory.name}: start and wait until it is healthy"
    return Step(f"{accessory.name}.start", title, body, seconds, undo, f"{accessory.name}: stop")


def _keep(app: Application, accessory: Accessory) -> Step:
    """Stop the container. The undo runs after that of the new container, and waits until the old one is healthy."""
    body = script(containers.keep_previous(app, accessory.name, accessory.stop_seconds))
    undo = script(containers.bring_back_previous(app, accessory), containers.wait_until_healthy(app, accessory))
    seconds = accessory.stop_seconds + accessory.deadline_seconds + PODMAN_SECONDS
    title, undo_title = f"{accessory.name}: stop and keep the container", f"{accessory.name}: start the old container"
    return Step(f"{accessory.name}.stop", title, body, seconds, undo, undo_title)


def _forget(app: Application, accessory: Accessory) -> Step:
    body = script(containers.remove_previous(app, accessory.name))
    return Step(f"{accessory.name}.forget", f"{accessory.name}: remove the old container", body, PODMAN_SECONDS)
