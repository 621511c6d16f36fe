"""What of a host's past stays and what may go: one rule for the end of a deploy and for a prune. Pure.

What runs stays, and so does all that the next rollback needs: the release, its images and its configuration.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fabfile.commands import backup, gone, journal, nginx, podman, record
from fabfile.commands.gone import Mode
from fabfile.commands.podman import spec_hash
from fabfile.model import Application, Container, HostState, Image, Rollout
from fabfile.plans import rollback

#: Journals of so many runs stay.
KEPT_JOURNALS = 20


@dataclass(frozen=True)
class Kept:
    """What stays: releases by id, images by digest, configurations by `SERVICE-SPEC`."""

    releases: frozenset[str]
    digests: frozenset[str]
    configurations: frozenset[str]


def kept(state: HostState, app: Application, rollout: Rollout, release: str = "") -> Kept:
    """What stays on the host; `app` is what runs or is about to, `release` the run that brings it."""
    good = [one for one in state.releases if one.action == "deploy" and one.good]
    wanted = {one.id: one for one in good[-rollout.retain_releases :]}
    now = frozenset((service.name, service.image.digest, spec_hash(app.name, service)) for service in app.services)
    for content in (now, rollback.running(state)):
        wanted |= {one.id: one for one in rollback.candidates(state.releases, content)[:1]}
    if (current := rollback.current(state)) is not None:
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


def spent(state: HostState, app: Application, rollout: Rollout) -> tuple[Container, ...]:
    """The stopped containers that no kept release ran; those of the last run stay, their logs may be wanted."""
    content = kept(replace(state, containers=_live(state, app)), app, rollout)
    last = state.releases[-1].id if state.releases else ""
    return tuple(
        one
        for one in state.containers
        if not one.running
        and one not in _live(state, app)
        and one.release != last
        and not (one.image.digest in content.digests and f"{one.service}-{one.spec}" in content.configurations)
    )


def _live(state: HostState, app: Application) -> tuple[Container, ...]:
    """What runs, and what a flag names for a service of today, running or not."""
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
            gone.gone(mode),
            podman.prune_images(_repositories(state, app), kept.digests, record.history_file(app.home)),
            podman.prune_configs(app.home, kept.configurations | kept.releases),
            backup.prune(app, mode),
            journal.prune(app.home, keep=KEPT_JOURNALS),
        )
    )


def prune(state: HostState, app: Application, rollout: Rollout, mode: Mode) -> str:
    """Select what a deploy's end deletes, and spent containers and the flags of services that are no more."""
    old = spent(state, app, rollout)
    rest = replace(state, containers=tuple(one for one in state.containers if one not in old))
    served = {service.name for service in app.services} | {one.service for one in rest.containers}
    flags = [nginx.flag(app, service) for service, _ in state.active if service not in served]
    return "\n".join(
        (
            gone.gone(mode),
            gone.containers([one.name for one in old]),
            gone.flags(flags),
            tidy(rest, app, kept(rest, app, rollout), mode),
        )
    )


def _repositories(state: HostState, app: Application) -> list[str]:
    """Where images of this application come from, or came from."""
    named = [Image.parse(run.image).repository for one in state.releases for _, run in one.services]
    ran = [one.image.repository for one in state.containers]
    return list(dict.fromkeys([*(service.image.repository for service in app.services), *named, *ran]))
