"""Promote: deploy the exact digests that run well in one environment to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rolling_upgrade import config
from rolling_upgrade.engine.model import Environment, HostState, Image, Transfer
from rolling_upgrade.errors import PROGRAM, ConfigError, ExitCode, PreflightError, usage_error
from rolling_upgrade.features.build.workflow import printer
from rolling_upgrade.features.deploy import workflow as deploy
from rolling_upgrade.features.health.workflow import check_hosts, is_healthy
from rolling_upgrade.ssh.fleet import opened


def promote(
    from_: str, to: str, *, root: Path, force: bool = False, dry_run: bool = False, json: bool = False
) -> ExitCode:
    """Deploy to the target the good release that every host of the source runs. Raises RollingError."""
    if not from_ or not to or from_ == to:
        value = f"--from {from_!r} --to {to!r}"
        raise usage_error(("--from, --to", value, "two environments of hosts.yaml"))
    source = config.load(from_, root=root)
    config.load(to, root=root, tag="promoted")  # report errors of its configuration first
    proven = _proven(source)
    tags = {image.tag for image in proven.values()}
    tag = tags.pop() if len(tags) == 1 else ""
    target = config.load(to, root=root, tag=tag)
    given = _given(source, target, proven)
    log = printer(target, to_stderr=json)
    for service, image in given.items():
        log(f"{service}: {image.reference} is {image.digest} on every host of {source.name}")
    return deploy.deploy(
        to,
        root=root,
        tag=tag,
        force=force,
        dry_run=dry_run,
        json=json,
        given=given,
        promoted=deploy.Promoted(source.name, _with_repositories(source, proven)),
    )


def _proven(source: Environment) -> dict[str, Image]:
    """Return the images by service that all hosts run as their last good release. Raises PreflightError."""
    with opened(source) as fleet:
        states = fleet.observe()
        reports = check_hosts(fleet)
    apps = {target.name: target.application for target in source.targets}
    faults, images = [], {}
    for name, state in states.items():
        if not apps[name].services:
            continue
        images[name], fault = good_images(state, [service.name for service in apps[name].services])
        faults += [f"{name}: {fault}"] if fault else []
    faults += [
        f"{name}: is unhealthy: {PROGRAM} health --env {source.name}"
        for name, report in reports.items()
        if not is_healthy(report)
    ]
    if not faults:
        faults = list(_differences(images))
    if faults:
        listed = "\n  ".join(faults)
        raise PreflightError(
            f"{source.name} has not proved one release; nothing was touched.\n  {listed}",
            next_step=f"{PROGRAM} deploy --env {source.name} until all its hosts are healthy on one release; then run the "
            "same command again",
        )
    return {service: image for found in images.values() for service, image in found.items()}


def good_images(state: HostState, services: list[str]) -> tuple[dict[str, Image], str]:
    """Return the images by service of a host that runs its last good release, else the reason why it does not."""
    last = state.last_good
    if last is None:
        return {}, "has no good release"
    recorded, images = dict(last.services), {}
    for service in services:
        run = state.container(service, state.active_color(service))
        record = recorded.get(service)
        if record is None or not record.digest:
            return {}, f"its last good release {last.id} has no digest of {service}"
        if run is None or not run.running or run.image.digest != record.digest:
            return {}, f"{service} does not match its last good release {last.id}"
        images[service] = replace(Image.parse(record.image), digest=record.digest, revision=record.revision)
    return images, ""


def _differences(images: Mapping[str, Mapping[str, Image]]) -> list[str]:
    """Return a line for each service whose digests differ between hosts."""
    first: dict[str, tuple[str, Image]] = {}
    return [
        f"{service}: {expected.digest[:19]} on {host}, {image.digest[:19]} on {name}"
        for name, found in images.items()
        for service, image in found.items()
        for host, expected in [first.setdefault(service, (name, image))]
        if image.digest != expected.digest
    ]


def _given(source: Environment, target: Environment, proven: Mapping[str, Image]) -> dict[str, Image]:
    """Return the images in the target's repositories. Raises ConfigError if the target cannot run them."""
    services = {service.name for service in target.services}
    if services != set(proven):
        raise ConfigError(
            f"{source.name} runs {', '.join(sorted(proven))}, {target.name} is to run {', '.join(sorted(services))}: "
            "a release cannot be promoted between them. Nothing was touched.",
            next_step="use the same services_file for both environments in hosts.yaml",
        )
    if target.rollout.transfer is Transfer.PUSH:
        raise ConfigError(
            f"{target.name} takes its images from this workstation (transfer: push), but only a registry has an "
            "image by its digest. Nothing was touched.",
            next_step="transfer: pull in hosts.yaml",
        )
    images = _with_repositories(target, proven)
    return {name: replace(image, revision="") for name, image in images.items()}


def _with_repositories(environment: Environment, images: Mapping[str, Image]) -> dict[str, Image]:
    """Return the images in the repositories that the environment's configuration names."""
    repositories = {service.name: service.image.repository for service in environment.services}
    return {name: replace(image, repository=repositories[name]) for name, image in images.items()}
