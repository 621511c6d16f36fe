"""What the suite itself costs in a two-service deploy: `python -m benchmarks.deploy_overhead`.

Share of the suite = wall time of `inv deploy --force` minus what the same stages took on the slowest host by that
host's own clock (the begin and end that each stage leaves in its journal): the same pull, start, gate, cutover, bake
and drain scripts, without SSH and without the suite, in the same run. Times depend on the machine; the shares of one run compare.
It brings up a lab of its own and takes it away.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.relay import Relay
from lab import laboratory
from lab.laboratory import Lab

PROJECT = Path(__file__).resolve().parent.parent
NAME = "bench"
_JOURNAL = """
cd "$(ls -d /var/lib/memoryark/journal/*/ | sort | tail -n 1)"
for session in *.session; do
  step=${session%.session}
  echo "$step $(stat -c %.Y "$session") $(stat -c %.Y "$step.status")"
done
"""
#: One line a login and one a command in sshd's log, at its level VERBOSE.
_COUNT = "journalctl -u ssh --since @{since} -o cat | grep -c {what} || true"


@dataclass(frozen=True)
class Row:
    """One measured deploy."""

    hosts: int
    rtt_ms: int
    wall: float
    on_host: float
    logins: int
    commands: int

    @property
    def share(self) -> float:
        """Seconds that the suite adds."""
        return self.wall - self.on_host


def main() -> None:
    """Measure every combination and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", default="1,2,4,8", help="numbers of hosts")
    parser.add_argument("--rtt", default="0,50,150", help="round-trip times in milliseconds")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    sizes = [int(number) for number in options.hosts.split(",")]
    try:
        lab = laboratory.up(max(sizes), name=NAME, say=_say)
        _configure(lab)
        _task("setup")
        for rtt in (int(number) for number in options.rtt.split(",")):
            with Relay({host.name: (host.address, 22) for host in lab.hosts}, rtt / 1000) as relay:
                _point_at(lab, relay.ports if rtt else {})
                for size in sizes:
                    _print([_measure(lab, size, rtt) for _ in range(options.repeat)])
    finally:
        laboratory.down(NAME)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _configure(lab: Lab) -> None:
    """Short waits, so that a run is short; they are the host's time and not the suite's."""
    services = yaml.safe_load((PROJECT / "deploy" / "services.yaml").read_text())
    for service in services["services"]:
        service["gate"] |= {"interval_seconds": 0.3, "passes": 2}
        service["drain"] = {"deadline_seconds": 1, "stop_seconds": 5}
    (lab.root / "services.yaml").write_text(yaml.safe_dump(services, sort_keys=False))
    for host in lab.hosts:
        host.sh("echo 'LogLevel VERBOSE' > /etc/ssh/sshd_config.d/00-verbose.conf; systemctl reload ssh")


def _point_at(lab: Lab, ports: dict[str, int]) -> None:
    """Write the inventory anew: the hosts themselves, or the relay in front of them."""
    path = lab.root / "hosts.yaml"
    content = yaml.safe_load(path.read_text())
    environment = content["environments"][NAME]
    environment["services_file"] = "services.yaml"
    environment["rollout"] |= {"bake_seconds": 1}
    keys = {}
    for line in (lab.root / "known_hosts").read_text().splitlines():
        address, _, key = line.partition(" ")
        keys[address] = key
    rows = [f"{host.address} {keys[host.address]}" for host in lab.hosts]
    for host in lab.hosts:
        entry = {"address": host.address}
        if host.name in ports:
            entry = {"address": "127.0.0.1", "port": str(ports[host.name])}
            rows.append(f"[127.0.0.1]:{ports[host.name]} {keys[host.address]}")
        environment["hosts"][host.name] = entry
    path.write_text(yaml.safe_dump(content))
    (lab.root / "known_hosts").write_text("\n".join(rows) + "\n")


def _task(*words: str) -> float:
    """Seconds that a task took, as its caller waits for it. Raises when it fails."""
    command = [sys.executable, "-m", "invoke", words[0], "--env", NAME, *words[1:]]
    began = time.monotonic()
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return seconds


def _measure(lab: Lab, size: int, rtt: int) -> Row:
    used = lab.hosts[:size]
    _say(f"{size} hosts at {rtt} ms")
    since = used[0].sh("date +%s.%N").stdout.strip()
    wall = _task("deploy", "--tag", "v1", "--force", "--hosts", ",".join(host.name for host in used))
    spent = []
    for host in used:
        rows = [line.split() for line in host.sh(_JOURNAL, user="deploy").stdout.splitlines()]
        spent.append(sum(float(end) - float(begin) for _, begin, end in rows))
    logins, commands = (
        int(used[0].sh(_COUNT.format(since=since, what=json.dumps(what))).stdout or 0)
        for what in ("Accepted publickey", "Starting session: command")
    )
    return Row(size, rtt, wall, max(spent), logins, commands)


def _print(rows: list[Row]) -> None:
    first = rows[0]
    wall, share = (statistics.median(values) for values in ([r.wall for r in rows], [r.share for r in rows]))
    print(
        f"| {first.hosts} | {first.rtt_ms} | {wall:.1f} | {share:.2f} | {share / wall:.0%} "
        f"| {max(row.logins for row in rows)} | {max(row.commands for row in rows)} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
