"""`inv attach`: follow the run in progress, whoever started it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from rolling_upgrade import config
from rolling_upgrade.console.output import print_lines
from rolling_upgrade.console.reporter import make_reporter
from rolling_upgrade.engine import lock_file, locking
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.host_run import RunEnd
from rolling_upgrade.engine.model import HostResult, HostSummary, Lock, Phase, Summary, exit_code
from rolling_upgrade.engine.remote_run import Follower
from rolling_upgrade.engine.shell import direct
from rolling_upgrade.errors import PROGRAM, ExitCode, HostUnreachable, LockLost, RollingError
from rolling_upgrade.ssh.fleet import Fleet, opened

READ_SECONDS = 30.0


def attach(env: str | None, *, root: Path, hosts: tuple[str, ...] = (), json: bool = False) -> ExitCode:
    """Follow the run in progress on the hosts to its end, and return its exit code; DONE without a run."""
    started_at = time.time()
    environment = config.load(env, root=root, hosts=hosts)
    with make_reporter(json=json, secrets=environment.secrets) as reporter, opened(environment) as fleet:
        found = fleet.on_all(lambda host: _running(host, fleet))
        running = {name: lock for name, lock in found.items() if lock is not None}
        if not running:
            if not json:
                history = f"{PROGRAM} history --env {environment.name}"
                print_lines([f"No run is in progress on {environment.name}; {history} shows the earlier ones."])
            return ExitCode.DONE
        context = RunContext("", environment.rollout.lease_seconds, reporter.event)
        for name, lock in running.items():
            context.emit(Phase.NOTE, f"run {lock.token}: {locking.describe(lock)}", name)
        ends = _follow(fleet, running, context)
        if ends is None:
            context.emit(
                Phase.NOTE,
                f"The run continues without you; {PROGRAM} attach --env {environment.name} follows it again.",
            )
            return ExitCode.INTERRUPTED
        summary = _summary(environment.name, running, ends, time.time() - started_at)
        reporter.summary(summary)
        return ExitCode(summary.exit_code)


def _running(host: Host, fleet: Fleet) -> Lock | None:
    """Return the lock of the run that a host executes."""
    home = fleet.targets[host.name].application.home
    text = host.run(direct(lock_file.show(home)), timeout_seconds=READ_SECONDS).output
    return lock_file.parse(text) if lock_file.is_executing(text) else None


def _follow(fleet: Fleet, running: Mapping[str, Lock], context: RunContext) -> Mapping[str, RunEnd] | None:
    """Follow the run on each host; None after Ctrl-C."""

    def follow(host: Host) -> RunEnd:
        home = fleet.targets[host.name].application.home
        return Follower(fleet.host(host.name), home, running[host.name].token, fleet.environment.name, context).follow()

    try:
        ends = fleet.on_each(follow, hosts=[host for host in fleet.hosts if host.name in running])
    except KeyboardInterrupt:
        return None
    return {name: _unknown(end) if isinstance(end, HostUnreachable) else end for name, end in ends.items()}


def _unknown(error: HostUnreachable) -> RunEnd:
    return RunEnd(HostResult.UNKNOWN, message=str(error))


def _outcome(end: RunEnd) -> HostResult | RollingError:
    """Return what determines the exit code of a run, as in `HostOutcome.result`."""
    error = end.raised
    return error if isinstance(error, LockLost) else end.result


def _summary(environment: str, running: Mapping[str, Lock], ends: Mapping[str, RunEnd], seconds: float) -> Summary:
    lock = next(iter(running.values()))
    rows = tuple(HostSummary(name, end.result, end.seconds, cause=end.message) for name, end in ends.items())
    results = ", ".join(f"{row.host} {row.result.value}" for row in rows)
    return Summary(
        action=lock.reason.partition(" ")[0] or "run",
        environment=environment,
        release=lock.token,
        exit_code=exit_code(_outcome(end) for end in ends.values()),
        seconds=seconds,
        hosts=rows,
        message=f"{results}. Next: {PROGRAM} status --env {environment}",
    )
