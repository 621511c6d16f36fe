"""`inv history`: show the releases in the hosts' histories, and verify that no line was altered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rolling_upgrade import config
from rolling_upgrade.console.output import print_result
from rolling_upgrade.console.text import count, duration, one_line, table, unreachable_lines, utc_time
from rolling_upgrade.engine import history as chain
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.model import Release, short_digest
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.engine.shell import direct
from rolling_upgrade.engine.untrusted import LARGE_ANSWER_BYTES, Malformed
from rolling_upgrade.errors import ExitCode, HostUnreachable
from rolling_upgrade.features.access.keys import key_names
from rolling_upgrade.features.rollback.selection import bad
from rolling_upgrade.ssh.fleet import Fleet, opened

READ_SECONDS = 60.0


@dataclass(frozen=True)
class HostHistory:
    """The history of one host: its releases, oldest first, and the places where the chain of hashes is broken.

    `head` is the hash of the last line. `left` holds the ids of good releases that were rolled back: later rollbacks
    skip them unless an operator names them. `key_names` maps fingerprints of SSH keys to names.
    """

    releases: tuple[Release, ...]
    faults: tuple[chain.Fault, ...] = ()
    head: str = ""
    left: frozenset[str] = frozenset()
    key_names: Mapping[str, str] = field(default_factory=dict)


def history(env: str | None, *, root: Path, hosts: tuple[str, ...], limit: int, verify: bool, json: bool) -> ExitCode:
    """Print the history of the hosts. FAILED if a host is unreachable or, with `verify`, a history was changed."""
    environment = config.load(env, root=root, hosts=hosts)
    names = key_names(environment.access_directory)
    with opened(environment) as fleet:
        histories, unreachable = fleet.on_reachable(lambda host: read(host, fleet, names))
    lines = history_lines(histories, unreachable, limit=limit, verify=verify)
    content = history_json(environment.name, histories, unreachable, limit=limit)
    print_result(content if json else lines, environment.secrets)
    altered = verify and any(history.faults for history in histories.values())
    return ExitCode.FAILED if unreachable or altered else ExitCode.DONE


def read(host: Host, fleet: Fleet, names: Mapping[str, str]) -> HostHistory:
    """Return the history of one host; `names` are the names of SSH keys. Raises HostUnreachable if it is truncated."""
    home = fleet.targets[host.name].application.home
    answer = host.run(direct(chain.read(home)).answering(LARGE_ANSWER_BYTES), timeout_seconds=READ_SECONDS)
    try:
        text, head = chain.split(answer.output)
        faults = chain.verify(text, head)
        releases = chain.parse(text)
    except Malformed as error:
        raise HostUnreachable(f"{host.name}: {error}: {answer.output_tail}") from error
    good = frozenset(release.id for release in releases if release.good)
    return HostHistory(releases, faults, head, good & bad(releases), names)


def history_lines(
    histories: Mapping[str, HostHistory], unreachable: Mapping[str, str], *, limit: int, verify: bool
) -> list[str]:
    """Return the newest `limit` releases of each host (0: all), newest last."""
    lines = [line for name, history in histories.items() for line in _host_lines(name, history, limit, verify=verify)]
    return [*lines, *unreachable_lines(unreachable)]


def _newest(releases: tuple[Release, ...], limit: int) -> tuple[Release, ...]:
    return releases[-limit:] if limit > 0 else releases


def _host_lines(name: str, history: HostHistory, limit: int, *, verify: bool) -> Iterator[str]:
    shown = _newest(history.releases, limit)
    earlier = len(history.releases) - len(shown)
    entries = f"{len(history.releases)} {'entry' if len(history.releases) == 1 else 'entries'}"
    yield f"{name}  {entries}{f', the newest {len(shown)} of them' if earlier else ''}"
    rows = table([_row(release, history) for release in shown])
    for release, row in zip(shown, rows, strict=True):
        yield row
        yield from _details(release, history.key_names)
    if history.faults:
        yield f"  ALTERED: {count(len(history.faults), 'place')} where a line was changed, removed or cut off"
        yield from (f"    line {fault.line}: {fault.problem}" for fault in history.faults)
    elif verify:
        yield f"  verified: no line was changed or removed; the hash of the last line is {history.head or 'none'}"
    yield ""


def _row(release: Release, history: HostHistory) -> tuple[str, ...]:
    outcome = release.outcome.value + (", left by a rollback" if release.id in history.left else "")
    return ("", one_line(utc_time(release.time)), release.action, outcome, duration(release.seconds), _images(release))


def _images(release: Release) -> str:
    return ", ".join(
        f"{name} {run.image.rpartition(':')[2]} ({short_digest(run.digest)})" for name, run in release.services
    )


def _details(release: Release, names: Mapping[str, str]) -> Iterator[str]:
    who = f"by {release.owner or 'unknown'}"
    key_owner = f" of {names[release.key]}" if release.key in names else ""
    key = f" with key {release.key}{key_owner}" if release.key else ""
    client = f" from {release.client}" if release.client else ""
    station = f" ({release.workstation})" if release.workstation else ""
    clone = f", clone {release.revision}" if release.revision else ""
    yield f"    {release.id} {one_line(who + key + client + station + clone)}"
    revisions = {name: run.revision for name, run in release.services if run.revision}
    if revisions:
        yield "    source " + one_line(", ".join(f"{name} {revision}" for name, revision in revisions.items()))
    if release.target:
        leaving = f", leaving {release.left}" if release.left else ""
        yield f"    to {one_line(release.target + leaving)}"
    if release.reason:
        yield f"    because {one_line(release.reason)}"


def history_json(
    environment: str, histories: Mapping[str, HostHistory], unreachable: Mapping[str, str], *, limit: int
) -> dict[str, Any]:
    """Return the newest `limit` releases of each host (0: all) as a JSON object."""
    hosts = [_host_json(name, history, limit) for name, history in histories.items()]
    hosts += [{"host": name, "unreachable": error} for name, error in unreachable.items()]
    return {"environment": environment, "hosts": hosts}


def _host_json(name: str, history: HostHistory, limit: int) -> dict[str, Any]:
    return {
        "host": name,
        "entries": len(history.releases),
        "whole": not history.faults,
        "faults": history.faults,
        "head": history.head,
        "releases": [_release_json(release, history) for release in _newest(history.releases, limit)],
    }


def _release_json(release: Release, history: HostHistory) -> dict[str, Any]:
    services: dict[str, Any] = {name: to_plain(service) for name, service in release.services}
    for service in services.values():
        del service["spec"]
    extra = {"left_by_rollback": release.id in history.left, "key_of": history.key_names.get(release.key, "")}
    fields: dict[str, Any] = to_plain(release)
    return fields | {"services": services} | extra
