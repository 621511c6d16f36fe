"""Status: look at every host in one round trip and say how it stands; one that cannot be reached is said too."""

from __future__ import annotations

import sys
from pathlib import Path

from fabfile import config
from fabfile.errors import ExitCode
from fabfile.model import HostState
from fabfile.remote import observe
from fabfile.report import problems, render_status
from fabfile.workflows.fleet import opened


def status(environment: str | None, *, root: Path, hosts: tuple[str, ...] = (), json: bool = False) -> ExitCode:
    """Print the state of the hosts. FAILED when something is unhealthy or a host cannot be reached."""
    wanted = config.load(environment, root=root, hosts=hosts)
    with opened(wanted) as fleet:
        found = observe.observe_reachable(fleet.hosts, fleet.targets, wanted.rollout.parallel)
        states = {name: look for name, look in found.items() if isinstance(look, HostState)}
        lost = {name: str(look) for name, look in found.items() if not isinstance(look, HostState)}
        render_status(wanted, states, json=json, out=sys.stdout, unreachable=lost)
        unwell = any(problems(fleet.targets[name], state) for name, state in states.items())
    return ExitCode.FAILED if lost or unwell else ExitCode.DONE
