"""Measures the overhead of a deploy with two services: `python -m benchmarks.deploy_overhead`.

The overhead is the wall time of `inv deploy --force` minus the time of the same steps on the slowest host, run by hand
there (see by_hand.py) in the same run with the same number of hosts. Only lines of one run are comparable. The
benchmark uses a separate lab; a second benchmark waits for the first, or needs another --name.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import product
from typing import Any

import yaml

from benchmarks import by_hand
from benchmarks.distance import SSH_PORT, distance, has_netem, write_inventory
from benchmarks.figures import MeasuredDeploy, SshCounts, read_parts, table
from lab import laboratory
from lab.files import locked
from lab.laboratory import PROJECT, Lab
from rolling_upgrade.errors import RollingError

TAG = "v1"
_VERBOSE = "echo 'LogLevel VERBOSE' >/etc/ssh/sshd_config.d/00-bench.conf && systemctl reload ssh"
#: Count logins and commands: one log line each. Source: sshd_config(5), LogLevel.
_COUNT = """
journalctl --sync
journalctl -t sshd -t sshd-session --since @{since:.3f} -o cat >/tmp/ssh-log
grep -c 'Accepted publickey for deploy' /tmp/ssh-log
grep -c 'Starting session: command' /tmp/ssh-log
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every combination and print the table as Markdown."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.deploy_overhead", description="Measure the overhead of a deploy."
    )
    parser.add_argument("--hosts", type=_numbers, default="1,2,4,8", help="numbers of hosts (default: 1,2,4,8)")
    parser.add_argument("--rtt", type=_numbers, default="0,50,150", help="round-trip milliseconds (default: 0,50,150)")
    parser.add_argument("--repeat", type=int, default=3, help="measurements behind each median (default: 3)")
    parser.add_argument("--name", default="bench", help="the lab's name (default: bench)")
    options = parser.parse_args(arguments)
    with locked(f"benchmark-{options.name}"):
        try:
            lab = laboratory.up(max(options.hosts), name=options.name, log=_log)
            _report(lab, options)
        except RollingError as error:
            raise SystemExit(str(error)) from error
        finally:
            laboratory.down(options.name, log=_log)


def _report(lab: Lab, options: argparse.Namespace) -> None:
    """Print the table, also after a failure or Ctrl-C."""
    netem = prepare(lab)
    deploys = []
    try:
        for deploy in measure(lab, options.hosts, options.rtt, options.repeat, netem=netem):
            deploys.append(deploy)
            _log(f"{deploy.hosts} hosts at {deploy.rtt} ms: {deploy.wall:.1f} s, by hand {deploy.by_hand:.1f} s")
    finally:
        way = "netem" if netem else "a delaying relay, because this kernel has no netem"
        print(f"Distance by {way}; {len(deploys)} deploys, medians.\n\n{table(deploys)}", flush=True)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def prepare(lab: Lab) -> bool:
    """Deploy the tag to every host, with an SSH server that logs each command. Return whether netem works."""
    path = lab.root / "services.yaml"
    services = yaml.safe_load(path.read_text())
    for service in services["services"]:
        service["gate"] |= {"interval_seconds": 0.3, "passes": 2}
        service["drain"] = {"deadline_seconds": 0, "stop_seconds": 5}
    path.write_text(yaml.safe_dump(services, sort_keys=False))
    write_inventory(lab, {host.name: (host.address, SSH_PORT) for host in lab.hosts})
    for host in lab.hosts:
        host.sh(_VERBOSE)
    _task(lab, "setup")
    _task(lab, "deploy", "--tag", TAG, "--force")
    return has_netem(lab)


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
    output = _task(lab, "deploy", "--tag", TAG, "--force", "--json", "--hosts", ",".join(names))
    ended_at = time.time()
    parts = read_parts(_events(output), started_at, ended_at, seconds_by_hand)
    counted = [_count(lab, name, started_at) for name in names]
    return MeasuredDeploy(
        len(names), rtt, seconds_by_hand, parts, SshCounts(*(max(column) for column in zip(*counted, strict=True)))
    )


def _events(output: str) -> list[dict[str, Any]]:
    messages = []
    for line in output.splitlines():
        with suppress(ValueError):
            messages.append(json.loads(line))
    return [message for message in messages if message.get("type") == "event"]


def _count(lab: Lab, name: str, since: float) -> tuple[int, int]:
    logins, commands = lab.host(name).sh(_COUNT.format(since=since), check=False).stdout.split()[:2]
    return int(logins), int(commands)


def _task(lab: Lab, *words: str) -> str:
    """Run a task and return its output. Raises SystemExit when it fails."""
    command = [sys.executable, "-m", "invoke", words[0], "--env", lab.name, *words[1:]]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"`inv {' '.join(words)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
