"""`inv inspect`: a troubleshooting page for each host, read in one round trip."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rolling_upgrade import config
from rolling_upgrade.console.output import print_json, print_lines
from rolling_upgrade.engine import observation
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.model import Application
from rolling_upgrade.errors import ExitCode
from rolling_upgrade.features.inspect import shell as inspection
from rolling_upgrade.features.inspect.view import Inspection, inspect_json, inspect_lines
from rolling_upgrade.features.logs.workflow import chosen_services
from rolling_upgrade.ssh.fleet import opened

INSPECT_SECONDS = 180.0
#: The answer holds five lines of each container's log, and lines may be long.
_ANSWER_BYTES = 8 << 20
_SITE_HASH = re.compile(r"[0-9a-f]{16,64}")


def inspect(env: str | None, *, root: Path, hosts: tuple[str, ...], services: tuple[str, ...], json: bool) -> ExitCode:
    """Print a page for each host. FAILED when a host is unreachable."""
    environment = config.load(env, root=root, hosts=hosts)
    names = chosen_services(environment, services)
    with opened(environment) as fleet:
        inspections, unreachable = fleet.on_reachable(
            lambda host: _inspect(host, fleet.targets[host.name].application, names)
        )
    if json:
        print_json(inspect_json(environment, inspections, unreachable, names), sys.stdout, environment.secrets)
    else:
        print_lines(inspect_lines(environment, inspections, unreachable, names), sys.stdout, environment.secrets)
    return ExitCode.FAILED if unreachable else ExitCode.DONE


def _inspect(host: Host, app: Application, services: Sequence[str]) -> Inspection:
    answer = host.run(inspection.inspect(app, services).answering(_ANSWER_BYTES), timeout_seconds=INSPECT_SECONDS)
    state = observation.from_answer(app, host.name, answer)
    parts = inspection.parse(answer.output)
    titled = {title: parts.get(key, ()) for key, title in inspection.TITLES.items()}
    site_hash = _SITE_HASH.search(state.site.partition("\n")[0])
    return Inspection(state, titled, site_hash[0] if site_hash else "")
