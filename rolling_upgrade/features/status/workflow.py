"""`inv status`: the state of every host, observed in one round trip each."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from rolling_upgrade import config
from rolling_upgrade.console.output import Output, has_colors, print_result
from rolling_upgrade.console.text import count, duration, one_line, table, unreachable_lines
from rolling_upgrade.engine import accessory as accessories
from rolling_upgrade.engine import jobs, untrusted
from rolling_upgrade.engine.jobs import JobState
from rolling_upgrade.engine.model import (
    AccessoryContainer,
    Container,
    Environment,
    HostState,
    ProbeResult,
    Service,
    Target,
    short_digest,
)
from rolling_upgrade.engine.observation import unseen_run
from rolling_upgrade.errors import ExitCode
from rolling_upgrade.ssh.fleet import opened


def status(env: str | None, *, root: Path, hosts: tuple[str, ...] = (), json: bool = False) -> ExitCode:
    """Print the state of the hosts. FAILED when something is unhealthy or a host cannot be reached."""
    environment = config.load(env, root=root, hosts=hosts)
    with opened(environment) as fleet:
        states, unreachable = fleet.on_reachable(fleet.observe_one)
    if json:
        print_result(status_json(environment, states, unreachable), environment.secrets)
    else:
        print_status(status_lines(environment, states, unreachable), sys.stdout, environment.secrets)
    unhealthy = any(problems(fleet.targets[name], state) for name, state in states.items())
    return ExitCode.FAILED if unreachable or unhealthy else ExitCode.DONE


def problems(target: Target, state: HostState) -> tuple[str, ...]:
    """Return the problems of a host, a sentence each; empty for a healthy host."""
    found: list[str] = []
    for service in target.application.services:
        color = state.active_color(service.name)
        container = state.container(service.name, color)
        if container is None:
            found.append(f"{service.name}: no {color.value} container, though {color.value} is the live color")
        elif not container.running:
            found.append(f"{service.name}: the live {color.value} container is {container.status or 'not running'}")
    for name in accessories.expected(target.application, state):
        if problem := accessories.problem(name, state):
            found.append(f"accessory {name}: {problem}")
    found += [f"job {job.name}: {job.outcome}" for job in jobs.states(state, target.application) if job.failed]
    found += [f"{probe.url or probe.name}: {probe.detail or 'no answer'}" for probe in state.probes if not probe.ok]
    return tuple(found)


#: The owner of a maintenance page, by the word that the host stores with it.
_PAGE_OWNERS = {"setting": "MAINTENANCE_MODE", "run": "a run that replaces data"}
_GREEN, _RED, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[0m"


def print_status(
    lines: Sequence[str], stream: TextIO, secrets: Sequence[str], environ: Mapping[str, str] = os.environ
) -> None:
    """Write the lines of a status, safe to show, with colored verdicts on a terminal."""
    output = Output(stream, secrets)
    text = output.safe("\n".join(lines))
    if has_colors(stream, environ):
        text = re.sub(r"\b(ok|healthy)$|(?<=  )ok\b", rf"{_GREEN}\g<0>{_PLAIN}", text, flags=re.MULTILINE)
        text = re.sub(r"\b(UNHEALTHY|UNREACHABLE|FAILED)\b", rf"{_RED}\g<0>{_PLAIN}", text)
    output.write(text + "\n")
    output.flush()


def status_lines(
    environment: Environment, states: Mapping[str, HostState], unreachable: Mapping[str, str]
) -> list[str]:
    """Return the state of each observed host, the errors of the unreachable ones, and the verdict, which is last."""
    observed = [target for target in environment.targets if target.name in states]
    lines = [line for target in observed for line in _host_lines(target, states[target.name])]
    lines += [line for row in unreachable_lines(unreachable) for line in (row, "")]
    unhealthy = [target.name for target in observed if problems(target, states[target.name])] + list(unreachable)
    verdict = f"UNHEALTHY: {', '.join(unhealthy)}" if unhealthy else "healthy"
    return [*lines, f"{environment.name}: {count(len(observed) + len(unreachable), 'host')}, {verdict}"]


def _host_lines(target: Target, state: HostState) -> Iterator[str]:
    wrong = problems(target, state)
    yield f"{target.name} ({target.address})  {'UNHEALTHY' if wrong else 'ok'}"
    head = ("", "SERVICE", "COLOR", "TAG", "DIGEST", "UPTIME", "RESTARTS", "STATE")
    yield from table([head, *(_service_row(service, state) for service in target.application.services)])
    yield from table([accessory_row(name, state) for name in accessories.expected(target.application, state)])
    yield from table([_probe_row(probe) for probe in state.probes])
    yield from table([_job_row(job, state.now) for job in jobs.states(state, target.application)])
    backup = _backup(state.fact("last_backup"), state.now)
    rows = (("last backup", backup), ("last release", _last_release(state)), ("lock", _lock(state)))
    yield from table([("", *row) for row in rows])
    if (run := unseen_run(state)) is not None:
        who = f" by {one_line(run.owner)}" if run.owner else ""
        ago = duration(max(state.now - run.ended_at, 0))
        yield f"  {one_line(run.title)}{who} ended {ago} ago: {run.result.value} (its workstation was gone)"
    if state.fact("maintenance"):
        owner = _PAGE_OWNERS.get(state.fact("maintenance"), "hand")
        yield f"  MAINTENANCE: visitors get the maintenance page (503), turned on by {owner}"
    yield from (f"  ! {one_line(problem)}" for problem in wrong)
    yield ""


def _service_row(service: Service, state: HostState) -> tuple[str, ...]:
    color = state.active_color(service.name)
    container = state.container(service.name, color)
    if container is None:
        return ("", service.name, color.value, "-", "-", "-", "-", "missing")
    up = uptime_seconds(container, state.now)
    return (
        "",
        service.name,
        color.value,
        one_line(container.image.tag) or "-",
        short_digest(container.image.digest or container.image_id) or "-",
        duration(up) if up is not None else "-",
        str(container.restarts),
        "running" if container.running else one_line(container.status) or "not running",
    )


def accessory_row(name: str, state: HostState) -> tuple[str, ...]:
    """Return the row of an accessory: name, tag, digest, uptime and health."""
    container = state.accessory(name)
    problem = accessories.problem(name, state)
    if container is None:
        return ("", "accessory", name, "-", "-", "-", problem)
    up = uptime_seconds(container, state.now)
    return (
        *("", "accessory", name),
        one_line(container.image.tag) or "-",
        short_digest(container.image.digest or container.image_id) or "-",
        duration(up) if up is not None else "-",
        one_line(problem) or "healthy",
    )


def accessory_json(name: str, state: HostState) -> dict[str, Any]:
    """Return the JSON object of an accessory."""
    container = state.accessory(name)
    return {
        "accessory": name,
        "healthy": not accessories.problem(name, state),
        "problem": accessories.problem(name, state) or None,
        "running": container is not None and container.running,
        "status": container.status if container else "missing",
        "tag": container.image.tag if container else None,
        "digest": container.image.digest if container else None,
        "uptime_seconds": uptime_seconds(container, state.now) if container else None,
        "restarts": container.restarts if container else None,
    }


def _probe_row(probe: ProbeResult) -> tuple[str, ...]:
    result = f"{'ok' if probe.ok else 'FAILED'} {one_line(probe.detail)}".rstrip()
    return "", "probe", one_line(probe.url or probe.name), result


def _job_row(job: JobState, now: int) -> tuple[str, ...]:
    ago = f", {duration(max(now - job.ended_at, 0))} ago" if job.ended_at else ""
    result = f"{'FAILED' if job.failed else 'ok'} {one_line(job.outcome.replace('success', ''))}".rstrip() + ago
    return "", "job", job.name, "runs now" if job.running else result if job.result else job.outcome


def _last_release(state: HostState) -> str:
    if not state.releases:
        return "none"
    last = state.releases[-1]
    who = f" by {one_line(last.owner)}" if last.owner else ""
    good = state.last_good
    served = f" (last good: {good.id})" if good is not None and good is not last else ""
    return one_line(f"{last.id} {last.action} {last.outcome.value}{who} at {last.time}{served}")


def _lock(state: HostState) -> str:
    lock = state.lock
    if lock is None:
        return "free"
    left = lock.expires_at - state.now
    until = f"for {duration(left)} more" if left > 0 else f"expired {duration(-left)} ago"
    return one_line(f"held by {lock.owner} on {lock.workstation} ({lock.reason}), {until}")


def _backup(fact: str, now: int) -> str:
    """Return time, age and name of the newest backup, which a host reports as `UNIX-SECONDS NAME`."""
    seconds, _, name = fact.strip().partition(" ")
    at = untrusted.moment(seconds, default=None)
    if at is None:
        return one_line(fact) or "none"
    when = f"{datetime.fromtimestamp(at, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    ago = f", {duration(now - at)} ago" if now else ""
    return f"{when}{ago} {one_line(name)}".rstrip()


_PODMAN_TIME = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)[T ](?P<time>\d\d:\d\d:\d\d)(?:\.\d+)? ?(?P<zone>Z|[+-]\d\d:?\d\d)?(?: .*)?"
)


def uptime_seconds(container: Container | AccessoryContainer, now: int) -> float | None:
    """Return the seconds since a running container started; None when it is stopped or its start time is unknown."""
    match = _PODMAN_TIME.fullmatch(container.started_at)
    if not container.running or not now:
        return None
    if (at := untrusted.integer(container.started_at, default=None)) is not None:
        return max(now - at, 0)
    if match is None:
        return None
    try:
        started = datetime.fromisoformat(f"{match['day']}T{match['time']}{match['zone'] or 'Z'}").timestamp()
    except (ValueError, OverflowError):
        return None
    return max(now - started, 0.0)


def status_json(
    environment: Environment, states: Mapping[str, HostState], unreachable: Mapping[str, str]
) -> dict[str, Any]:
    """Return the JSON object of a status; an unreachable host has its error as the only problem."""
    hosts = [_host_json(target, states[target.name]) for target in environment.targets if target.name in states]
    hosts += [{"host": host, "healthy": False, "problems": [error]} for host, error in unreachable.items()]
    return {"environment": environment.name, "healthy": all(host["healthy"] for host in hosts), "hosts": hosts}


def _host_json(target: Target, state: HostState) -> dict[str, Any]:
    host_problems = problems(target, state)
    return {
        "host": target.name,
        "address": target.address,
        "healthy": not host_problems,
        "problems": host_problems,
        "services": [_service_json(service, state) for service in target.application.services],
        "accessories": [accessory_json(name, state) for name in accessories.expected(target.application, state)],
        "probes": state.probes,
        "jobs": [{**asdict(job), "failed": job.failed} for job in jobs.states(state, target.application)],
        "maintenance": state.fact("maintenance") or None,
        "last_backup": state.fact("last_backup") or None,
        "last_release": _chosen(state.releases[-1], _RELEASE_KEYS) if state.releases else None,
        "lock": _chosen(state.lock, _LOCK_KEYS) if state.lock else None,
        "unseen_run": unseen_run(state),
    }


_RELEASE_KEYS = ("id", "time", "action", "outcome", "owner", "reason", "seconds")
_LOCK_KEYS = ("owner", "workstation", "reason", "acquired_at", "expires_at")


def _chosen(value: object, keys: Sequence[str]) -> dict[str, Any]:
    return {key: getattr(value, key) for key in keys}


def _service_json(service: Service, state: HostState) -> dict[str, Any]:
    color = state.active_color(service.name)
    container = state.container(service.name, color)
    return {
        "service": service.name,
        "color": color.value,
        "running": container is not None and container.running,
        "status": container.status if container else "missing",
        "tag": container.image.tag if container else None,
        "digest": container.image.digest if container else None,
        "release": container.release if container else None,
        "uptime_seconds": uptime_seconds(container, state.now) if container else None,
        "restarts": container.restarts if container else None,
    }
