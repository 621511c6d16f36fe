"""Compares an upgrade by this product, an Ansible playbook and a pyinfra script: `python -m benchmarks.peers`.

Each upgrade brings two services on one lab host to another version, blue-green: pull, start the idle color, wait for
its gate, switch Nginx, verify through Nginx, stop the old color. It counts only if afterwards both services run in the
other color and Nginx answers with the new version; otherwise the benchmark fails.

A tool's own share is its wall time minus the time of its own steps by hand, measured just before it: for this product
the steps of its plan (see benchmarks/by_hand.py), which include a verified backup; for Ansible and pyinfra the commands
in commands.py. The tools take turns, and only lines of one run are comparable.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
from collections.abc import Iterator, Sequence
from itertools import product

from benchmarks.deploy_overhead import prepare as prepare_product
from benchmarks.distance import distance, has_netem, method
from benchmarks.peers import application, virtual_environments
from benchmarks.peers.comparison import Upgrade, ratios, table
from benchmarks.peers.tools import Tool, tools, upgrade_by_hand, write_ssh_config
from benchmarks.program import benchmark_lab, log, numbers
from lab.laboratory import Lab
from rolling_upgrade import __version__

_PACKAGES = {"ansible": "ansible-core", "pyinfra": "pyinfra"}
_HOST_VERSIONS = "podman --version; nginx -v 2>&1; python3 --version"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the upgrades and print the tables as Markdown."""
    parser = argparse.ArgumentParser("python -m benchmarks.peers", description="The same upgrade by three tools.")
    parser.add_argument("--rtt", type=numbers, default="0,50,150", help="round-trip milliseconds (default: 0,50,150)")
    parser.add_argument("--repeat", type=int, default=5, help="upgrades behind each median (default: 5)")
    parser.add_argument("--name", default="bench", help="the lab's name (default: bench)")
    options = parser.parse_args(arguments)
    programs = {tool: virtual_environments.install(tool) for tool in _PACKAGES}
    versions = [
        f"{_PACKAGES[tool]} {virtual_environments.version(programs[tool], _PACKAGES[tool])}" for tool in programs
    ]
    with benchmark_lab(options.name, 1) as lab:
        prepare_product(lab, application.VERSIONS[0], bake_seconds=0)
        application.prepare(lab.hosts[0])
        upgrade_by_hand(lab, application.VERSIONS[0])
        _report(lab, tools(lab, programs), options, versions)


def _report(lab: Lab, compared: Sequence[Tool], options: argparse.Namespace, versions: Sequence[str]) -> None:
    """Print the tables, also after a failure or Ctrl-C."""
    netem = has_netem(lab)
    upgrades = []
    try:
        for upgrade in measure(lab, compared, options.rtt, options.repeat, netem=netem):
            upgrades.append(upgrade)
            log(f"{upgrade.tool} at {upgrade.rtt} ms: {upgrade.wall:.1f} s, by hand {upgrade.by_hand:.1f} s")
    finally:
        print(f"{', '.join((f'rolling-upgrade {__version__}', *versions, *_machine(lab)))}.")
        print(f"Distance by {method(netem=netem)}; {len(upgrades)} upgrades, medians.\n")
        print(f"{table(upgrades)}\n\n{ratios(upgrades, *(tool.name for tool in compared))}", flush=True)


def measure(lab: Lab, compared: Sequence[Tool], rtts: Sequence[int], repeat: int, *, netem: bool) -> Iterator[Upgrade]:
    """Measure each tool at each distance, after the same steps by hand, and repeat all in another order."""
    for number, rtt in product(range(repeat), rtts):
        first = number % len(compared)
        for tool in (*compared[first:], *compared[:first]):
            seconds = tool.measure_by_hand()
            with distance(lab, rtt, netem=netem) as endpoints:
                write_ssh_config(lab, endpoints)
                yield tool.measure(rtt, seconds)


def _machine(lab: Lab) -> tuple[str, ...]:
    """Return the versions of what the tools run on."""
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr.partition(",")[0]
    on_host = lab.hosts[0].sh(_HOST_VERSIONS).stdout.splitlines()
    return (f"Python {platform.python_version()}", ssh, f"on the host {', '.join(on_host)}")


if __name__ == "__main__":
    main()
