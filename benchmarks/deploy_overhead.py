"""Measures the overhead of a deploy with two services: `python -m benchmarks.deploy_overhead`.

The overhead is the wall time of `inv deploy --force` minus the time of the same steps on the slowest host, run by hand
there (see by_hand.py) in the same run with the same number of hosts. Only lines of one run are comparable. The
benchmark uses a separate lab; a second benchmark waits for the first, or needs another --name.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import product
from typing import Any

import yaml

from benchmarks import by_hand
from benchmarks.distance import distance, has_netem, method
from benchmarks.figures import MeasuredDeploy, read_parts, table
from benchmarks.program import benchmark_lab, log, numbers, run_task
from benchmarks.ssh_log import SshCounts, count, log_executions
from lab.laboratory import Lab

TAG = "v1"
BAKE_SECONDS = 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every combination and print the table as Markdown."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.deploy_overhead", description="Measure the overhead of a deploy."
    )
    parser.add_argument("--hosts", type=numbers, default="1,2,4,8", help="numbers of hosts (default: 1,2,4,8)")
    parser.add_argument("--rtt", type=numbers, default="0,50,150", help="round-trip milliseconds (default: 0,50,150)")
    parser.add_argument("--repeat", type=int, default=3, help="measurements behind each median (default: 3)")
    parser.add_argument("--name", default="bench", help="the lab's name (default: bench)")
    options = parser.parse_args(arguments)
    with benchmark_lab(options.name, max(options.hosts)) as lab:
        _report(lab, options)


def _report(lab: Lab, options: argparse.Namespace) -> None:
    """Print the table, also after a failure or Ctrl-C."""
    prepare(lab, TAG, bake_seconds=BAKE_SECONDS)
    netem = has_netem(lab)
    deploys = []
    try:
        for deploy in measure(lab, options.hosts, options.rtt, options.repeat, netem=netem):
            deploys.append(deploy)
            log(f"{deploy.hosts} hosts at {deploy.rtt} ms: {deploy.wall:.1f} s, by hand {deploy.by_hand:.1f} s")
    finally:
        print(f"Distance by {method(netem=netem)}; {len(deploys)} deploys, medians.\n\n{table(deploys)}", flush=True)


def prepare(lab: Lab, tag: str, *, bake_seconds: float) -> None:
    """Deploy the tag to every host, with short waits and an SSH server that logs each command."""
    path = lab.root / "services.yaml"
    services = yaml.safe_load(path.read_text())
    for service in services["services"]:
        service["gate"] |= {"interval_seconds": 0.3, "passes": 2}
        service["drain"] = {"deadline_seconds": 0, "stop_seconds": 5}
    path.write_text(yaml.safe_dump(services, sort_keys=False))
    inventory = lab.root / "hosts.yaml"
    environments = yaml.safe_load(inventory.read_text())
    environments["environments"][lab.name]["rollout"] |= {"bake_seconds": bake_seconds}
    inventory.write_text(yaml.safe_dump(environments))
    for host in lab.hosts:
        log_executions(host)
    run_task(lab, "setup")
    run_task(lab, "deploy", "--tag", tag, "--force")


def measure(
    lab: Lab, sizes: Sequence[int], rtts: Sequence[int], repeat: int, *, netem: bool
) -> Iterator[MeasuredDeploy]:
    """Measure each size by hand and at each distance, and repeat all, so that slow periods affect all equally."""
    for _, size in product(range(repeat), sizes):
        names = [host.name for host in lab.hosts[:size]]
        seconds_by_hand = by_hand.deploy(lab, names, TAG)
        for rtt in rtts:
            with distance(lab, rtt, netem=netem):
                yield _deploy(lab, names, rtt, seconds_by_hand)


def _deploy(lab: Lab, names: Sequence[str], rtt: int, seconds_by_hand: float) -> MeasuredDeploy:
    started_at = time.time()
    output = run_task(lab, "deploy", "--tag", TAG, "--force", "--json", "--hosts", ",".join(names))
    ended_at = time.time()
    parts = read_parts(_events(output), started_at, ended_at, seconds_by_hand)
    counts = [count(lab.host(name), started_at) for name in names]
    busiest = SshCounts(max(each.connections for each in counts), max(each.executions for each in counts))
    return MeasuredDeploy(len(names), rtt, seconds_by_hand, parts, busiest)


def _events(output: str) -> list[dict[str, Any]]:
    messages = []
    for line in output.splitlines():
        with suppress(ValueError):
            messages.append(json.loads(line))
    return [message for message in messages if message.get("type") == "event"]


if __name__ == "__main__":
    main()
