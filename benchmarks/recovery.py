"""Measures how long visitors wait until the watchdog has recovered a fault: `python -m benchmarks.recovery`.

The watchdog runs with its default interval on one host of a separate lab. The benchmark causes each fault there and
requests the backend's health through Nginx ten times per second.
"""

from __future__ import annotations

import argparse
import http.client
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.program import benchmark_lab, log, run_task
from benchmarks.tables import markdown
from lab.host import Host, wait_for
from lab.laboratory import PROJECT, Lab
from rolling_upgrade import config

DOMAIN = "app.lab.test"
LONGEST_SECONDS = 240.0
#: The service is recovered at the first of this many consecutive good answers.
ANSWERS = 20
_DEFAULTS = {
    "HEALTH_CHECK_INTERVAL": "30s",
    "HEALTH_CHECK_TIMEOUT": "5s",
    "HEALTH_CHECK_RETRIES": "3",
    # The benchmark causes the same fault several times.
    "RECOVERY_LIMIT": "100",
}
_NAME = "$(podman ps --format '{{.Names}}' | grep backend)"
_PROCESS = f"$(podman inspect --format '{{{{.State.Pid}}}}' {_NAME})"
_HEADINGS = ("fault", "goal s", "median s", "longest s", "times", "recovery")


@dataclass(frozen=True)
class Fault:
    """A fault, its recovery, and the longest acceptable outage."""

    name: str
    goal_seconds: float
    recovery: str
    cause: Callable[[Host], object]
    version: str = "v1"


def _script(text: str) -> Callable[[Host], object]:
    return lambda host: host.sh(text, user="deploy")


FAULTS = (
    Fault("container killed", 30, "Podman restarts it", _script(f"kill -9 {_PROCESS}")),
    Fault("container stopped", 30, "restart", _script(f"podman stop -t 1 {_NAME}")),
    Fault("backend hangs (SIGSTOP)", 30, "restart", _script(f"kill -STOP {_PROCESS}")),
    Fault("container removed", 90, "restart, then redeploy", _script(f"podman rm -f -t 0 {_NAME}")),
    Fault("fresh release goes bad", 90, "roll back", lambda host: _make_unhealthy(host), "v2"),
    Fault("host rebooted", 90, "boot", Host.reboot),
    Fault("power cut", 90, "boot", Host.power_cut),
)


def _make_unhealthy(host: Host) -> None:
    host.sh(f"touch {_unhealthy_file()}", user="deploy")


def _unhealthy_file() -> str:
    """Return the file that makes v2 of the sample backend unhealthy while it exists."""
    return config.load("bench", root=PROJECT).targets[0].application.database.rpartition("/")[0] + "/unhealthy-v2"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every fault and print the table as Markdown."""
    parser = argparse.ArgumentParser("python -m benchmarks.recovery", description="From a fault to service.")
    parser.add_argument("--repeat", type=int, default=3, help="number of times that each fault is caused (default: 3)")
    parser.add_argument("--only", default="", help="only faults whose name contains this word")
    parser.add_argument(
        "--quiet", type=float, default=300.0, help="seconds for measuring the watchdog's own cost (default: 300)"
    )
    options = parser.parse_args(arguments)
    with benchmark_lab("bench", 1) as lab:
        _report(lab, options)


def _report(lab: Lab, options: argparse.Namespace) -> None:
    _edit_env(lab)
    for words in (("setup", "--force"), ("deploy", "--tag", "v1"), ("monitor.install",)):
        run_task(lab, *words)
    time.sleep(options.quiet)
    cost = _cost(lab)
    log(cost)
    rows = []
    try:
        for fault in FAULTS:
            if options.only in fault.name:
                rows.append(_row(fault, [_measure(lab, fault) for _ in range(options.repeat)]))
                log(" | ".join(rows[-1]))
    finally:
        print(f"{markdown(_HEADINGS, rows, left=('fault', 'recovery'))}\n\n{cost}", flush=True)


def _row(fault: Fault, seconds: Sequence[float]) -> tuple[str, ...]:
    figures = (f"{fault.goal_seconds:g}", f"{median(seconds):.1f}", f"{max(seconds):.1f}", str(len(seconds)))
    return (fault.name, *figures, fault.recovery)


def _measure(lab: Lab, fault: Fault) -> float:
    """Return the seconds from the fault to the recovery."""
    host = lab.hosts[0]
    if fault.version != "v1":
        host.sh(f"rm -f {_unhealthy_file()}", user="deploy")
        _wait_for_calm(host)
        run_task(lab, "deploy", "--tag", fault.version)
    wait_for(lambda: _answers(host), 60, "the application before the fault")
    _wait_for_calm(host)
    started_at = time.monotonic()
    fault.cause(host)
    return _recovered_at(host) - started_at


def _wait_for_calm(host: Host) -> None:
    """Wait until the watchdog has found everything healthy often enough to reset its counters."""
    text = "cat /var/lib/memoryark/watchdog/memory.json"

    def healthy() -> bool:
        counters = json.loads(host.sh(text).stdout)["memory"]["counters"]
        return bool(counters) and all(
            counter["attempts"] == counter["failures"] == counter["crashes"] == 0 for counter in counters
        )

    wait_for(healthy, LONGEST_SECONDS, "the watchdog to reset its counters")


def _recovered_at(host: Host) -> float:
    """Return the time of the first of ANSWERS consecutive good answers after at least one bad answer."""
    deadline = time.monotonic() + LONGEST_SECONDS
    bad, good, first = False, 0, 0.0
    while not (bad and good >= ANSWERS):
        at = time.monotonic()
        if at > deadline:
            raise SystemExit("the outage was too long, or there was none")
        if _answers(host):
            first = first if good else at
            good += 1
        else:
            bad, good = True, 0
        time.sleep(0.1)
    return first


def _answers(host: Host) -> bool:
    connection = http.client.HTTPConnection(host.address, 80, timeout=2)
    try:
        connection.request("GET", "/api/health", headers={"Host": DOMAIN})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _cost(lab: Lab) -> str:
    """Return the memory and CPU use of the watchdog."""
    status = json.loads(run_task(lab, "monitor.status", "--json"))["hosts"][0]
    return f"watchdog: {status['memory_bytes'] / 1e6:.1f} MB, {status['cpu_percent']} % of a core, with its children"


def _edit_env(lab: Lab) -> None:
    path = lab.root / f"{lab.name}.env"
    kept = [line for line in path.read_text().splitlines() if line.partition("=")[0] not in _DEFAULTS]
    path.write_text("\n".join([*kept, *(f"{key}={value}" for key, value in _DEFAULTS.items())]) + "\n")


if __name__ == "__main__":
    main()
