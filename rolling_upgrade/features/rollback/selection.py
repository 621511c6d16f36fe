"""Choose the release that a host goes back to, from its own history.

A release is bad if it was undone, or if a rollback left it. A bad one is chosen only by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.model import Application, HostState, Release
from rolling_upgrade.engine.preflight import Finding

Content = frozenset[tuple[str, str, str]]


def reason(targets: Mapping[str, str]) -> str:
    """The purpose that a rollback's lock names, given each host's target."""
    distinct = set(targets.values())
    if len(distinct) == 1:
        return f"rollback to {distinct.pop()}"
    return "rollback to " + " ".join(f"{host}={target}" for host, target in targets.items())


def bad(releases: Sequence[Release]) -> frozenset[str]:
    """The ids of releases that are never chosen automatically."""
    found: set[str] = set()
    for release in releases:
        if release.action == "deploy" and not release.good:
            found.add(release.id)
        if release.action == "rollback" and release.good:
            found.add(release.left)
            found.discard(release.target)
    return frozenset(found)


def candidates(releases: Sequence[Release], running: Content) -> tuple[Release, ...]:
    """The releases that a rollback may choose, best first, without the one that runs."""
    refused = bad(releases)
    good = [release for release in releases if release.action == "deploy" and release.good]
    return tuple(release for release in reversed(good) if release.id not in refused and release.content != running)


def running(state: HostState) -> Content:
    """The content of the live colors, whether or not their containers are running.

    If a container is missing and the others belong to the last good release, that release counts as running.
    """
    live = [one for one in state.containers if one.color is state.active_color(one.service)]
    found = frozenset((one.service, one.image.digest, one.spec) for one in live)
    last = _last(state.releases)
    return last.content if last is not None and found < last.content else found


def _last(releases: Sequence[Release]) -> Release | None:
    """The release that the newest good deploy or rollback brought."""
    newest = next((one for one in reversed(releases) if one.good and one.action in {"deploy", "rollback"}), None)
    if newest is None or newest.action == "deploy":
        return newest
    return next((one for one in releases if one.id == newest.target), newest)


def current(state: HostState) -> Release | None:
    """The release that a rollback leaves: the newest good one that runs, else the newest good one.

    After a rollback that died, its target may run already; the release before it is the one that is left.
    """
    if _unfinished(state):
        return _last(state.releases)
    good = [release for release in state.releases if release.action == "deploy" and release.good]
    here = [release for release in good if release.content == running(state)]
    return (here or good)[-1] if good else None


def choose(state: HostState, named: str = "") -> Release | Finding:
    """The release to go back to: the one named by id or tag, or the last good one that is not running."""
    if named:
        return _named(state, named)
    wanted = _unfinished(state)
    for release in state.releases:
        if release.id == wanted:
            return release
    found = candidates(state.releases, running(state))
    if found:
        return found[0]
    return Finding(
        state.host,
        "there is no earlier good release to go back to",
        "Deploy the tag that is wanted: inv deploy --tag TAG, or leave the host out with --hosts",
    )


def _unfinished(state: HostState) -> str:
    """The target of a rollback that died on this host and left its lock."""
    return state.lock.target if state.lock else ""


def _named(state: HostState, named: str) -> Release | Finding:
    deploys = [release for release in state.releases if release.action == "deploy"]
    found = [release for release in deploys if release.id == named or named in tags(release)]
    good = [release for release in found if release.good]
    if good:
        return good[-1]
    known = ", ".join(f"{one.id} ({', '.join(tags(one))})" for one in candidates(state.releases, frozenset())[:5])
    if found:
        problem = f"{named} was undone on this host: it never passed its gate, its verification and its bake"
    else:
        problem = f"its history has no release {named!r}"
    return Finding(state.host, problem, f"Good ones, newest first: {known or 'none'}")


def tags(release: Release) -> tuple[str, ...]:
    """The image tags of a release, each once."""
    return tuple(dict.fromkeys(run.image.rpartition(":")[2] for _, run in release.services))


def unavailable(host: str, release: Release, app: Application, output: str) -> tuple[Finding, ...]:
    """The parts of the release that are no longer available, from the output of `history.available`."""
    said = {tuple(row.split(" ")[:2]): row.split(" ")[2] for row in untrusted.lines(output) if row.count(" ") == 2}
    found = []
    remedy = f"Choose another with --to (inv history shows them), or deploy its tag: {', '.join(tags(release))}"
    for service in app.services:
        if said.get((service.name, "env")) != "yes":
            problem = f"{service.name}: the environment of release {release.id} is gone from the host"
            found.append(Finding(host, problem, remedy))
        if said.get((service.name, "image"), "no") == "no":
            problem = f"{service.name}: the image of release {release.id} is neither on the host nor in its registry"
            found.append(Finding(host, problem, remedy))
    return tuple(found)
