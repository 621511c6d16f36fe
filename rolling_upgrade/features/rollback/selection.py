"""Choose the release that a host goes back to, from its own history.

A release is bad if its run undid it, or if a rollback left it. `--to` can select one that a rollback left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.model import Application, HostState, Release
from rolling_upgrade.engine.podman import spec_hash
from rolling_upgrade.engine.preflight import Finding
from rolling_upgrade.errors import PROGRAM

#: The name, image digest and configuration hash of each service, as in `Release.content`.
Content = frozenset[tuple[str, str, str]]


def lock_reason(targets: Mapping[str, str]) -> str:
    """Return the reason for the lock of a rollback, given each host's target."""
    distinct = set(targets.values())
    if len(distinct) == 1:
        return f"rollback to {distinct.pop()}"
    return "rollback to " + " ".join(f"{host}={target}" for host, target in targets.items())


def bad(releases: Sequence[Release]) -> frozenset[str]:
    """Return the ids of the bad releases."""
    ids: set[str] = set()
    for release in releases:
        if release.action == "deploy" and not release.good:
            ids.add(release.id)
        if release.action == "rollback" and release.good:
            ids.add(release.left)
            ids.discard(release.target)
    return frozenset(ids)


def candidates(releases: Sequence[Release], running: Content) -> tuple[Release, ...]:
    """Return the releases that a rollback may choose, best first, without the running one."""
    refused = bad(releases)
    return tuple(
        release
        for release in reversed(_good_deploys(releases))
        if release.id not in refused and release.content != running
    )


def _good_deploys(releases: Sequence[Release]) -> list[Release]:
    return [release for release in releases if release.action == "deploy" and release.good]


def content_of(app: Application) -> Content:
    """Return the content of a release of this application."""
    return frozenset((service.name, service.image.digest, spec_hash(app.name, service)) for service in app.services)


def running(state: HostState) -> Content:
    """Return the content of the live colors, including stopped containers.

    If a container is missing and the others belong to the last good release, that release counts as running.
    """
    content = frozenset(
        (container.service, container.image.digest, container.spec)
        for container in state.containers
        if container.color is state.active_color(container.service)
    )
    last = _last(state.releases)
    return last.content if last is not None and content < last.content else content


def _last(releases: Sequence[Release]) -> Release | None:
    """Return the release of the newest good deploy or rollback."""
    changes = {"deploy", "rollback"}
    newest = next((release for release in reversed(releases) if release.good and release.action in changes), None)
    if newest is None or newest.action == "deploy":
        return newest
    return next((release for release in releases if release.id == newest.target), newest)


def current(state: HostState) -> Release | None:
    """Return the release that a rollback leaves: the newest good one that runs, else the newest good one.

    A rollback that died may have started its target already; then the release before it is the current one.
    """
    if _unfinished(state):
        return _last(state.releases)
    good = _good_deploys(state.releases)
    content = running(state)
    live = [release for release in good if release.content == content]
    return (live or good)[-1] if good else None


def choose(state: HostState, named: str = "") -> Release | Finding:
    """Return the release to go back to: the one with this id or tag, or the last good one that is not running."""
    if named:
        return _named(state, named)
    unfinished = _unfinished(state)
    for release in state.releases:
        if release.id == unfinished:
            return release
    best = candidates(state.releases, running(state))
    if best:
        return best[0]
    return Finding(
        state.host,
        "there is no earlier good release to roll back to",
        f"Deploy a tag: {PROGRAM} deploy --tag TAG, or leave the host out with --hosts",
    )


def _unfinished(state: HostState) -> str:
    """Return the target of a rollback that died on this host and left its lock, or ''."""
    return state.lock.target if state.lock else ""


def _named(state: HostState, named: str) -> Release | Finding:
    matches = [
        release
        for release in state.releases
        if release.action == "deploy" and (release.id == named or named in tags(release))
    ]
    good = [release for release in matches if release.good]
    if good:
        return good[-1]
    best = candidates(state.releases, frozenset())[:5]
    known = ", ".join(f"{release.id} ({', '.join(tags(release))})" for release in best)
    problem = f"its history has no release {named!r}"
    if matches:
        problem = f"{named} was undone on this host: it never passed its gate, its verification and its bake"
    return Finding(state.host, problem, f"Good ones, newest first: {known or 'none'}")


def tags(release: Release) -> tuple[str, ...]:
    """Return the image tags of a release, each once."""
    return tuple(dict.fromkeys(run.image.rpartition(":")[2] for _, run in release.services))


def unavailable(host: str, release: Release, app: Application, output: str) -> tuple[Finding, ...]:
    """Return a finding for each part of the release that the host lacks, given the output of `history.available`."""
    rows = [row.split(" ") for row in untrusted.lines(output) if row.count(" ") == 2]
    answers = {(service, part): answer for service, part, answer in rows}
    findings = []
    remedy = f"Choose another with --to ({PROGRAM} history shows them), or deploy its tag: {', '.join(tags(release))}"
    for service in app.services:
        if answers.get((service.name, "env")) != "yes":
            problem = f"{service.name}: the environment of release {release.id} is gone from the host"
            findings.append(Finding(host, problem, remedy))
        if answers.get((service.name, "image"), "no") == "no":
            problem = f"{service.name}: the image of release {release.id} is neither on the host nor in its registry"
            findings.append(Finding(host, problem, remedy))
    return tuple(findings)
