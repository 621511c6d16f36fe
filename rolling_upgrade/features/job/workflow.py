"""List the jobs of the hosts, and run one now."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from threading import Event

from rolling_upgrade import config
from rolling_upgrade.console.output import HostOutput, print_result
from rolling_upgrade.console.text import duration, one_line, table, unreachable_lines
from rolling_upgrade.engine import jobs
from rolling_upgrade.engine.host import Cancelled, Host
from rolling_upgrade.engine.jobs import JobState
from rolling_upgrade.engine.model import Environment, Job
from rolling_upgrade.engine.parallel import run_streams
from rolling_upgrade.errors import PROGRAM, ExitCode, Interrupted, PreflightError, RollingError, usage_error
from rolling_upgrade.features.job import shell
from rolling_upgrade.ssh.fabric_host import FabricHost
from rolling_upgrade.ssh.fleet import Fleet, opened

QUERY_SECONDS = 60.0


@dataclass(frozen=True)
class ListedJob:
    """A job on a host, its last run, and its next start in Unix seconds, 0 without one."""

    job: Job
    state: JobState
    next_at: int
    now: int


def list_jobs(env: str | None, *, root: Path, hosts: tuple[str, ...] = (), json: bool = False) -> ExitCode:
    """Print the jobs of the hosts. FAILED if the last run of one failed, or if a host cannot be reached."""
    environment = config.load(env, root=root, hosts=hosts)
    with opened(environment) as fleet:
        found, unreachable = fleet.on_reachable(lambda host: _listed(host, fleet))
    if json:
        print_result(job_json(environment, found, unreachable), environment.secrets)
    else:
        print_result(job_lines(environment, found, unreachable), environment.secrets)
    failed = any(row.state.failed or not row.next_at for rows in found.values() for row in rows)
    return ExitCode.FAILED if failed or unreachable else ExitCode.DONE


def _listed(host: Host, fleet: Fleet) -> tuple[ListedJob, ...]:
    app = fleet.targets[host.name].application
    answer = host.run(shell.listing(app), timeout_seconds=QUERY_SECONDS)
    state = shell.parse(host.name, answer.output)
    states = {found.name: found for found in jobs.states(state, app)}
    return tuple(ListedJob(job, states[job.name], shell.next_start(state, job.name), state.now) for job in app.jobs)


def job_lines(
    environment: Environment, found: Mapping[str, tuple[ListedJob, ...]], unreachable: Mapping[str, str]
) -> list[str]:
    """Return the table of all jobs."""
    rows = [_row(host, row) for host, listed in found.items() for row in listed]
    if not rows and not unreachable:
        return [f"{environment.name} has no jobs on these hosts."]
    head = ("HOST", "JOB", "SCHEDULE", "NEXT RUN", "LAST RUN", "TOOK", "RESULT")
    return [*(table([head, *rows]) if rows else []), *unreachable_lines(unreachable)]


def _row(host: str, row: ListedJob) -> tuple[str, ...]:
    state = row.state
    took = duration(state.ended_at - state.started_at) if state.ended_at and not state.running else "-"
    result = "runs now" if state.running else f"{'FAILED: ' if state.failed else ''}{one_line(state.outcome)}"
    coming = _moment(row.next_at) if row.next_at else "no timer"
    return host, row.job.name, row.job.schedule, coming, _moment(state.started_at), took, result


def _moment(at: int) -> str:
    return f"{datetime.fromtimestamp(at, timezone.utc):%Y-%m-%d %H:%M:%S} UTC" if at else "-"


def job_json(
    environment: Environment, found: Mapping[str, tuple[ListedJob, ...]], unreachable: Mapping[str, str]
) -> dict[str, object]:
    """Return the JSON object of all jobs."""
    hosts: list[dict[str, object]] = [
        {
            "host": host,
            "jobs": [
                {"job": row.job.name, "service": row.job.service, "schedule": row.job.schedule, "next_at": row.next_at}
                | {name: value for name, value in asdict(row.state).items() if name != "name"}
                | {"failed": row.state.failed}
                for row in listed
            ],
        }
        for host, listed in found.items()
    ]
    hosts += [{"host": host, "error": error} for host, error in unreachable.items()]
    return {"environment": environment.name, "hosts": hosts}


def run_job(env: str | None, *, root: Path, name: str = "", hosts: tuple[str, ...] = ()) -> int:
    """Run a job on its hosts and print its output.

    Returns:
        The exit code of the job on a single host; on several, DONE, or FAILED when it failed on one.
    """
    environment = config.load(env, root=root, hosts=hosts)
    known = shell.named(target.application for target in environment.targets)
    if name not in known:
        expected = f"one of: {', '.join(known)}" if known else "a job of services.yaml, which has none for these hosts"
        raise usage_error(("--name", repr(name) if name else "", expected))
    with opened(environment) as fleet:
        chosen = [host for host in fleet.hosts if _job(fleet, host, name)]
        _refuse(fleet.on_all(lambda host: _listed(host, fleet), hosts=chosen), name, environment.name)
        names = [host.name for host in chosen]
        out = HostOutput(sys.stdout, hosts=names, secrets=environment.secrets)
        err = HostOutput(sys.stderr, hosts=names, secrets=environment.secrets)
        ended = Event()
        commands = [_command(host, fleet, name, out, err, ended) for host in chosen]
        results = run_streams(commands, ended, lambda: out.closed)
    if any(isinstance(result, Cancelled) for result in results):
        raise Interrupted(
            f"interrupted; the job {name} continues on {', '.join(names)}.",
            next_step=f"{PROGRAM} logs --env {environment.name} --job {name} --follow",
        )
    return _outcome(dict(zip(names, results, strict=True)))


def _refuse(found: Mapping[str, tuple[ListedJob, ...]], name: str, env: str) -> None:
    """Raise PreflightError for a job that runs already, or that no deploy has installed."""
    rows = [(host, row) for host, listed in found.items() for row in listed if row.job.name == name]
    for host, row in rows:
        if row.state.running:
            since = f"since {_moment(row.state.started_at)}"
            raise PreflightError(
                f"{host}: the job {name} runs already, {since}; nothing was started.",
                next_step=f"{PROGRAM} logs --env {env} --job {name} --follow shows its output",
            )
        if not row.next_at:
            raise PreflightError(
                f"{host}: the job {name} has no timer; nothing was started.", next_step=f"{PROGRAM} deploy --env {env}"
            )


def _outcome(results: Mapping[str, int | Exception]) -> int:
    """Return the exit code. Raises the error of the first host that has one."""
    for result in results.values():
        if isinstance(result, Exception):
            raise result
    statuses = [result for result in results.values() if isinstance(result, int)]
    return statuses[0] if len(statuses) == 1 else int(ExitCode.FAILED if any(statuses) else ExitCode.DONE)


def _job(fleet: Fleet, host: Host, name: str) -> Job | None:
    return next((job for job in fleet.targets[host.name].application.jobs if job.name == name), None)


def _command(
    host: FabricHost, fleet: Fleet, name: str, out: HostOutput, err: HostOutput, ended: Event
) -> Callable[[], int | Exception]:
    """Return the function that runs the job on one host and returns its status or its error."""
    app, job = fleet.targets[host.name].application, _job(fleet, host, name)
    assert job is not None  # noqa: S101  (the host was chosen by it)
    script = shell.run(app, job)

    def run() -> int | Exception:
        try:
            return host.stream(
                script,
                lambda piece: out.feed(host.name, piece),
                lambda piece: err.feed(host.name, piece),
                cancelled=ended,
            )
        except (RollingError, Cancelled) as error:
            return error
        finally:
            out.end(host.name)
            err.end(host.name)

    return run
