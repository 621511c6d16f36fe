"""Inspect: one page about each host, with all that one would ask there by hand, in one round trip."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from fabfile import config
from fabfile.commands import inspection
from fabfile.errors import ExitCode, HostUnreachable
from fabfile.model import Application
from fabfile.remote import observe
from fabfile.remote.host import Host
from fabfile.report.inspection import Inspected, render_inspection
from fabfile.workflows.fleet import opened
from fabfile.workflows.logs import chosen_services

INSPECT_SECONDS = 180.0
_SITE_HASH = re.compile(r"[0-9a-f]{16,64}")


def inspect(
    environment: str | None, *, root: Path, hosts: tuple[str, ...], services: tuple[str, ...], json: bool
) -> ExitCode:
    """Print a page for each host. FAILED when one cannot be reached."""
    wanted = config.load(environment, root=root, hosts=hosts)
    names = chosen_services(wanted, services)
    with opened(wanted) as fleet:
        found = observe.on_each(
            fleet.hosts, wanted.rollout.parallel, lambda host: _look(host, fleet.targets[host.name].application, names)
        )
    pages = {name: one for name, one in found.items() if isinstance(one, Inspected)}
    lost = {name: str(one) for name, one in found.items() if isinstance(one, HostUnreachable)}
    render_inspection(wanted, pages, lost, names, json=json, out=sys.stdout)
    return ExitCode.FAILED if lost else ExitCode.DONE


def _look(host: Host, app: Application, services: Sequence[str]) -> Inspected:
    answer = host.run(inspection.inspect(app, services), timeout_seconds=INSPECT_SECONDS)
    state = observe.read(app, host.name, answer.output, answer.last_words)
    parts = inspection.parse(answer.output)
    titled = {title: parts.get(key, ()) for key, title in inspection.TITLES.items()}
    found = _SITE_HASH.search(state.site.partition("\n")[0])
    return Inspected(state, titled, found[0] if found else "")
