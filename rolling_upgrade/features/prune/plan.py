"""Retention on one host: what is kept and what is deleted, by the same rule after a deploy and in a prune.

Everything that runs is kept, and everything that the next rollback needs: the release, its images, its configuration.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rolling_upgrade.engine import history, nginx, podman, stage
from rolling_upgrade.engine import prune as pruning
from rolling_upgrade.engine.model import Application, Container, HostState, Image, RolloutPolicy
from rolling_upgrade.engine.podman import spec_hash
from rolling_upgrade.engine.prune import Mode
from rolling_upgrade.features.backup import shell as backup
from rolling_upgrade.features.rollback import selection

#: The number of runs whose journals are kept.
KEPT_JOURNALS = 20


@dataclass(frozen=True)
class Kept:
    """What is kept: releases by id, images by digest, configurations by `SERVICE-SPEC`."""

    releases: frozenset[str]
    digests: frozenset[str]
    configurations: frozenset[str]


def kept(state: HostState, app: Application, rollout: RolloutPolicy, release: str = "") -> Kept:
    """What the host keeps; `app` runs or is about to run, `release` is the run that brings it."""
    good = [one for one in state.releases if one.action == "deploy" and one.good]
    wanted = {one.id: one for one in good[-rollout.retain_releases :]}
    now = frozenset((service.name, service.image.digest, spec_hash(app.name, service)) for service in app.services)
    for content in (now, selection.running(state)):
        wanted |= {one.id: one for one in selection.candidates(state.releases, content)[:1]}
    if (current := selection.current(state)) is not None:
        wanted[current.id] = current
    runs = [(name, run) for one in wanted.values() for name, run in one.services]
    return Kept(
        releases=frozenset({*wanted, release}),
        digests=frozenset(
            {
                *(run.digest for _, run in runs),
                *(service.image.digest for service in app.services),
                *(container.image.digest for container in state.containers),
            }
        ),
        configurations=frozenset(
            {
                *(f"{name}-{run.spec}" for name, run in runs),
                *(f"{service.name}-{spec_hash(app.name, service)}" for service in app.services),
                *(f"{container.service}-{container.spec}" for container in state.containers),
            }
        ),
    )


def spent(state: HostState, app: Application, rollout: RolloutPolicy) -> tuple[Container, ...]:
    """Stopped containers that belong to no kept release; those of the last run stay for their logs."""
    live = _live(state, app)
    content = kept(replace(state, containers=live), app, rollout)
    lives = frozenset(live)
    last = state.releases[-1].id if state.releases else ""
    return tuple(
        one
        for one in state.containers
        if not one.running
        and one not in lives
        and one.release != last
        and not (one.image.digest in content.digests and f"{one.service}-{one.spec}" in content.configurations)
    )


def _live(state: HostState, app: Application) -> tuple[Container, ...]:
    """Running containers, and those that a flag of a current service names."""
    names = {service.name for service in app.services}
    return tuple(
        one
        for one in state.containers
        if one.running or (one.service in names and one.color is state.active_color(one.service))
    )


def tidy(state: HostState, app: Application, kept: Kept, mode: Mode = Mode.QUIET) -> str:
    """Select what is past its retention: images, configurations, backups, journals."""
    return "\n".join(
        (
            pruning.prune_entry(mode),
            podman.prune_images(_repositories(state, app), kept.digests, history.history_file(app.home)),
            podman.prune_configs(app.home, kept.configurations | kept.releases),
            backup.prune(app, mode),
            stage.prune(app.home, keep=KEPT_JOURNALS),
        )
    )


def prune(state: HostState, app: Application, rollout: RolloutPolicy, mode: Mode) -> str:
    """Select what `tidy` selects, spent containers, and the flags of removed services."""
    old = spent(state, app, rollout)
    spent_containers = frozenset(old)
    rest = replace(state, containers=tuple(one for one in state.containers if one not in spent_containers))
    served = {service.name for service in app.services} | {one.service for one in rest.containers}
    flags = [nginx.flag(app, service) for service, _ in state.active if service not in served]
    return "\n".join(
        (
            pruning.prune_entry(mode),
            pruning.containers([one.name for one in old]),
            pruning.flags(flags),
            tidy(rest, app, kept(rest, app, rollout), mode),
        )
    )


def _repositories(state: HostState, app: Application) -> list[str]:
    """The repositories of all images of this application, present and past."""
    named = [Image.parse(run.image).repository for one in state.releases for _, run in one.services]
    ran = [one.image.repository for one in state.containers]
    return list(dict.fromkeys([*(service.image.repository for service in app.services), *named, *ran]))
