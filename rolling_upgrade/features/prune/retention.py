"""Select the expired items of a host, by one rule for deploys and `prune`; parse the report of a prune.

A host keeps everything that runs, and everything that the next rollback needs: release, images, configuration.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rolling_upgrade.engine import assets, history, journal, nginx, podman, untrusted
from rolling_upgrade.engine.model import Application, Container, HostState, Image, RolloutPolicy
from rolling_upgrade.engine.podman import spec_hash
from rolling_upgrade.engine.prune_entry import Mode, prune_entry
from rolling_upgrade.engine.shell import quote
from rolling_upgrade.features.backup import shell as backup
from rolling_upgrade.features.rollback import selection

#: The number of runs whose journals are kept.
KEPT_JOURNALS = 20


@dataclass(frozen=True)
class Kept:
    """The items that a host keeps: releases by id, images by digest, configurations by `SERVICE-SPEC`."""

    releases: frozenset[str]
    digests: frozenset[str]
    configurations: frozenset[str]


def kept(state: HostState, app: Application, rollout: RolloutPolicy, run_id: str = "") -> Kept:
    """Return the items that the host keeps. `app` runs there or is about to start; `run_id` is its run."""
    good = [release for release in state.releases if release.action == "deploy" and release.good]
    releases = {release.id: release for release in good[-rollout.retain_releases :]}
    for content in (selection.content_of(app), selection.running(state)):
        releases |= {release.id: release for release in selection.candidates(state.releases, content)[:1]}
    if (current := selection.current(state)) is not None:
        releases[current.id] = current
    runs = [(name, run) for release in releases.values() for name, run in release.services]
    return Kept(
        releases=frozenset({*releases, run_id}),
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


def expired_containers(state: HostState, app: Application, rollout: RolloutPolicy) -> tuple[Container, ...]:
    """Return the stopped containers of releases that the host does not keep, except the last run's (for logs)."""
    live = _live(state, app)
    content, live_set = kept(replace(state, containers=live), app, rollout), frozenset(live)
    last = state.releases[-1].id if state.releases else ""
    return tuple(
        container
        for container in state.containers
        if container not in live_set
        and container.release != last
        and not (
            container.image.digest in content.digests
            and f"{container.service}-{container.spec}" in content.configurations
        )
    )


def _live(state: HostState, app: Application) -> tuple[Container, ...]:
    """Return the running containers, and those that a flag of a current service names."""
    names = {service.name for service in app.services}
    return tuple(
        container
        for container in state.containers
        if container.running
        or (container.service in names and container.color is state.active_color(container.service))
    )


def prune_files(state: HostState, app: Application, kept: Kept, mode: Mode = Mode.QUIET) -> str:
    """Return shell text that selects expired images, configurations, backups and journals."""
    return "\n".join(
        (
            prune_entry(mode),
            podman.prune_images(_repositories(state, app), kept.digests, history.history_file(app.home), mode),
            podman.prune_configs(app.home, kept.configurations | kept.releases),
            assets.prune(app.home, kept.digests, mode),
            backup.prune(app, mode),
            journal.prune(app.home, keep=KEPT_JOURNALS),
        )
    )


def prune(state: HostState, app: Application, rollout: RolloutPolicy, mode: Mode) -> str:
    """Return shell text that selects the items of `prune_files`, expired containers, and flags of removed services."""
    expired = expired_containers(state, app, rollout)
    expired_set = frozenset(expired)
    rest = replace(state, containers=tuple(item for item in state.containers if item not in expired_set))
    services = {service.name for service in app.services} | {container.service for container in rest.containers}
    flags = [nginx.flag(app, service) for service, _ in state.active if service not in services]
    return "\n".join(
        (
            prune_entry(mode),
            _containers([container.name for container in expired]),
            "\n".join(f"prune_entry flag {quote(flag)} 0 rm -f {quote(flag)}" for flag in flags),
            prune_files(rest, app, kept(rest, app, rollout), mode),
        )
    )


def _containers(names: list[str]) -> str:
    """Remove stopped containers; `podman rm` refuses one that was started meanwhile."""
    size = "podman container inspect --size --format '{{.SizeRw}}'"
    return "\n".join(
        f'prune_entry container {quote(name)} "$({size} {quote(name)} 2>/dev/null || echo 0)" podman rm {quote(name)}'
        for name in names
    )


def _repositories(state: HostState, app: Application) -> list[str]:
    """Return the repositories of all images of this application, current and former."""
    repositories = [
        *(service.image.repository for service in app.services),
        *(Image.parse(run.image).repository for release in state.releases for _, run in release.services),
        *(container.image.repository for container in state.containers),
    ]
    return list(dict.fromkeys(repositories))


@dataclass(frozen=True)
class ExpiredItem:
    """An item past its retention; `verdict` is `would go`, `gone` or `in use`.

    Images share layers, so the sum of their `bytes` is an upper bound of the space that deleting them frees.
    """

    kind: str
    name: str
    bytes: int
    verdict: str


def free_bytes() -> str:
    """Print `free BYTES`: the free space on the file system of the images."""
    return 'printf \'free\\t%s\\n\' "$(df -Pk "$HOME" | awk \'NR == 2 { printf "%.0f", $4 * 1024 }\')"'


def parse(output: str) -> tuple[tuple[ExpiredItem, ...], int]:
    """The reported items, and the bytes by which the free space grew."""
    items, free = [], []
    for line in untrusted.lines(output):
        columns = line.split("\t")
        if len(columns) == 4:
            items.append(ExpiredItem(columns[1], columns[2], _number(columns[3]), columns[0]))
        elif len(columns) == 2 and columns[0] == "free":
            free.append(_number(columns[1]))
    return tuple(items), max(0, free[-1] - free[0]) if free else 0


def _number(text: str) -> int:
    return int(untrusted.number(text, default=0.0))
