"""What of a host's past stays and what may go: one rule for the end of a deploy and for a prune. Pure.

What runs stays, and so does all that the next rollback needs: the release, its images and its configuration.
"""

from __future__ import annotations

from dataclasses import dataclass

from fabfile.commands import backup, journal, podman, record
from fabfile.commands.podman import spec_hash
from fabfile.model import Application, HostState, Rollout
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


def tidy(app: Application, kept: Kept) -> str:
    """Delete what is past its retention."""
    repositories = [service.image.repository for service in app.services]
    return "\n".join(
        (
            podman.prune_images(repositories, kept.digests, record.history_file(app.home)),
            podman.prune_configs(app.home, kept.configurations | kept.releases),
            backup.prune(app),
            journal.prune(app.home, keep=KEPT_JOURNALS),
        )
    )
