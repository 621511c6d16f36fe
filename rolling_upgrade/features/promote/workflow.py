"""Promote: what one environment has proved runs in another, digest by digest, whatever its tags say now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fabfile import config
from fabfile.errors import ConfigError, ExitCode, Mistake, PreflightError
from fabfile.model import Environment, HostState, Image, Transfer
from fabfile.workflows import deploy
from fabfile.workflows.building import voice
from fabfile.workflows.fleet import opened
from fabfile.workflows.health import is_well, look


@dataclass(frozen=True)
class Request:
    """What the operator asked for: from which environment to which."""

    source: str
    target: str
    root: Path
    force: bool = False
    dry_run: bool = False
    json: bool = False


def promote(request: Request) -> ExitCode:
    """Deploy to the target the digests that every host of the source runs and found good. Raises RollingError."""
    if not request.source or not request.target or request.source == request.target:
        found = f"--from {request.source!r} --to {request.target!r}"
        mistake = Mistake("command line", "--from, --to", found, "two environments of hosts.yaml")
        raise ConfigError("The command line has a mistake; nothing was contacted.", [mistake])
    source = config.load(request.source, root=request.root)
    config.load(request.target, root=request.root, tag="promoted")  # its mistakes are told before anyone is asked
    proven = _proven(source)
    tags = {image.tag for image in proven.values()}
    tag = tags.pop() if len(tags) == 1 else ""
    target = config.load(request.target, root=request.root, tag=tag)
    given = _given(source, target, proven)
    say = voice(target, aside=request.json)
    for service, image in given.items():
        say(f"{service}: {image.reference} is {image.digest} on every host of {source.name}")
    return deploy.deploy(
        deploy.Request(
            request.target,
            request.root,
            tag,
            force=request.force,
            dry_run=request.dry_run,
            json=request.json,
            given=given,
            prove=True,
        )
    )


def _proven(source: Environment) -> dict[str, Image]:
    """The images by service that all hosts run, as their last good release has them. Raises PreflightError."""
    with opened(source) as fleet:
        states = fleet.observe()
        found = look(fleet)
    names = [service.name for service in source.targets[0].application.services]
    faults, images = [], {}
    for name, state in states.items():
        images[name], fault = good_images(state, names)
        faults += [f"{name}: {fault}"] if fault else []
    faults += [
        f"{name}: is not well: inv health --env {source.name}" for name, one in found.items() if not is_well(one)
    ]
    if not faults:
        faults = list(_differences(images))
    if faults:
        listed = "\n  ".join(faults)
        raise PreflightError(
            f"{source.name} has not proved one release; nothing was touched.\n  {listed}",
            next_step=f"inv deploy --env {source.name} until all its hosts are well on one release, then again",
        )
    return next(iter(images.values()))


def good_images(state: HostState, services: list[str]) -> tuple[dict[str, Image], str]:
    """What a host runs, which is its last good release, by service; or why that cannot be said."""
    last = state.last_good
    if last is None:
        return {}, "has no good release"
    recorded, images = dict(last.services), {}
    for service in services:
        run = state.container(service, state.active_color(service))
        wanted = recorded.get(service)
        if wanted is None or not wanted.digest:
            return {}, f"its last good release {last.id} has no digest of {service}"
        if run is None or not run.running or run.image.digest != wanted.digest:
            return {}, f"{service} is not what its last good release {last.id} recorded"
        images[service] = replace(Image.parse(wanted.image), digest=wanted.digest, revision=wanted.revision)
    return images, ""


def _differences(images: Mapping[str, Mapping[str, Image]]) -> list[str]:
    """Services whose digests are not the same on every host."""
    (first, wanted), *others = images.items()
    return [
        f"{service}: {image.digest[:19]} on {first}, {other[service].digest[:19]} on {name}"
        for name, other in others
        for service, image in wanted.items()
        if other[service].digest != image.digest
    ]


def _given(source: Environment, target: Environment, proven: Mapping[str, Image]) -> dict[str, Image]:
    """The images under the target's own repositories. Raises ConfigError where the two run other services."""
    app = target.targets[0].application
    own = {service.name for service in app.services}
    if own != set(proven):
        raise ConfigError(
            f"{source.name} runs {', '.join(sorted(proven))}, {target.name} is to run {', '.join(sorted(own))}: "
            "a release cannot be promoted between them. Nothing was touched.",
            next_step="let both name one services_file in hosts.yaml",
        )
    if target.rollout.transfer is Transfer.PUSH:
        raise ConfigError(
            f"{target.name} takes its images from this workstation (transfer: push), a digest is had from a registry "
            "alone. Nothing was touched.",
            next_step="transfer: pull in hosts.yaml",
        )
    return {name: replace(image, repository=app.service(name).image.repository) for name, image in proven.items()}
