"""History: what was done on each host, as the hosts themselves keep it, and whether it is whole."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from fabfile import config
from fabfile.commands import journal, record
from fabfile.config.access import key_names
from fabfile.errors import ExitCode, HostUnreachable
from fabfile.plans.rollback import bad
from fabfile.remote import observe
from fabfile.remote.host import Host
from fabfile.report.history import Told, render_history
from fabfile.workflows.fleet import Fleet, opened

READ_SECONDS = 60.0


def history(
    environment: str | None, *, root: Path, hosts: tuple[str, ...], limit: int, verify: bool, json: bool
) -> ExitCode:
    """Print the history of the hosts. FAILED when one cannot be reached, or is not whole and that was asked."""
    wanted = config.load(environment, root=root, hosts=hosts)
    names = key_names(wanted.access_folder)
    with opened(wanted) as fleet:
        found = observe.on_each(fleet.hosts, wanted.rollout.parallel, lambda host: read(host, fleet, names))
    told = {name: one for name, one in found.items() if isinstance(one, Told)}
    lost = {name: str(one) for name, one in found.items() if isinstance(one, HostUnreachable)}
    render_history(wanted, told, lost, limit=limit, verify=verify, json=json, out=sys.stdout)
    broken = verify and any(one.faults for one in told.values())
    return ExitCode.FAILED if lost or broken else ExitCode.DONE


def read(host: Host, fleet: Fleet, names: Mapping[str, str]) -> Told:
    """The history of one host; `names` says whose the keys are. Raises HostUnreachable when it was cut short."""
    home = fleet.targets[host.name].application.home
    answer = host.run(journal.direct(record.read(home)), timeout_seconds=READ_SECONDS)
    try:
        text, head = record.split(answer.output)
    except ValueError as error:
        raise HostUnreachable(f"{host.name}: {error}: {answer.last_words}") from error
    faults = tuple((fault.line, fault.problem) for fault in record.verify(text, head))
    releases = record.parse(text)
    good = frozenset(release.id for release in releases if release.good)
    return Told(releases, faults, head, good & bad(releases), names)
