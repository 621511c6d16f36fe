"""The state of an environment for people and programs, and what in it is not well. It observes nothing."""

from __future__ import annotations

import json as json_format
import os
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, TextIO

from fabfile.model import Container, Environment, HostState, ProbeResult, Service, Target
from fabfile.report.output import Output
from fabfile.report.reporter import has_colors
from fabfile.report.text import count, duration, one_line, short_digest, table

#: Who can have put the maintenance page up, as the page itself says.
_WHO = {"setting": "MAINTENANCE_MODE", "run": "a run that replaces data"}
_GOOD, _BAD, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[0m"


def render_status(
    environment: Environment,
    states: Mapping[str, HostState],
    *,
    json: bool,
    out: TextIO,
    unreachable: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Write how the observed hosts stand; `unreachable` names those that gave no answer, and why.

    Hosts in neither mapping were not asked and are not mentioned.
    """
    environ = environ if environ is not None else os.environ
    output = Output(out, environment.secrets)
    asked = [target for target in environment.targets if target.name in states]
    if json:
        _write_json(environment, asked, states, unreachable or {}, output)
        return
    colors = has_colors(out, environ)
    for target in asked:
        _show(output, _host_lines(target, states[target.name]), colors=colors)
    for host, why in (unreachable or {}).items():
        _show(output, iter([f"{host}  NOT REACHED: {one_line(why)}", ""]), colors=colors)
    _show(output, iter([_verdict(environment.name, asked, states, unreachable or {})]), colors=colors)


def problems(target: Target, state: HostState) -> tuple[str, ...]:
    """What on the host is not well, a sentence each; nothing means healthy."""
    found: list[str] = []
    for service in target.application.services:
        color = state.active_color(service.name)
        container = state.container(service.name, color)
        if container is None:
            found.append(f"{service.name}: no {color.value} container, though {color.value} is the live color")
        elif not container.running:
            found.append(f"{service.name}: the live {color.value} container is {container.status or 'not running'}")
    found += [f"{probe.url or probe.name}: {probe.detail or 'no answer'}" for probe in state.probes if not probe.ok]
    return tuple(found)


def _show(output: Output, lines: Iterator[str], *, colors: bool) -> None:
    """Write lines; the first word of a verdict is colored only after everything else was made harmless."""
    text = output.safe("\n".join(lines))
    if colors:
        text = re.sub(r"\b(ok|healthy)$|(?<=  )ok\b", rf"{_GOOD}\g<0>{_PLAIN}", text, flags=re.MULTILINE)
        text = re.sub(r"\b(NOT WELL|NOT REACHED|FAILED)\b", rf"{_BAD}\g<0>{_PLAIN}", text)
    output.write(text + "\n")
    output.flush()


def _verdict(name: str, asked: list[Target], states: Mapping[str, HostState], unreachable: Mapping[str, str]) -> str:
    ill = [target.name for target in asked if problems(target, states[target.name])] + list(unreachable)
    if ill:
        return f"{name}: {count(len(asked) + len(unreachable), 'host')}, NOT WELL: {', '.join(ill)}"
    return f"{name}: {count(len(asked), 'host')}, healthy"


def _host_lines(target: Target, state: HostState) -> Iterator[str]:
    wrong = problems(target, state)
    yield f"{target.name} ({target.address})  {'NOT WELL' if wrong else 'ok'}"
    head = ("", "SERVICE", "COLOR", "TAG", "DIGEST", "UPTIME", "RESTARTS", "STATE")
    yield from table([head, *(_service_row(service, state) for service in target.application.services)])
    yield from table([_probe_row(probe) for probe in state.probes])
    backup = _backup(state.fact("last_backup"), state.now)
    rows = (("last backup", backup), ("last release", _last_release(state)), ("lock", _lock(state)))
    yield from table([("", *row) for row in rows])
    if state.fact("maintenance"):
        yield f"  MAINTENANCE: visitors get a page with 503; put up by {_WHO.get(state.fact('maintenance'), 'hand')}"
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


def _probe_row(probe: ProbeResult) -> tuple[str, ...]:
    said = f"{'ok' if probe.ok else 'FAILED'} {one_line(probe.detail)}".rstrip()
    return "", "probe", one_line(probe.url or probe.name), said


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
    """The newest backup, observed as `UNIX-SECONDS NAME`: when, how long ago, and its name."""
    seconds, _, name = fact.strip().partition(" ")
    try:
        at = float(seconds)
    except ValueError:
        return one_line(fact) or "none"
    when = f"{datetime.fromtimestamp(at, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    ago = f", {duration(now - at)} ago" if now else ""
    return f"{when}{ago} {one_line(name)}".rstrip()


_PODMAN_TIME = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)[T ](?P<time>\d\d:\d\d:\d\d)(?:\.\d+)? ?(?P<zone>Z|[+-]\d\d:?\d\d)?(?: .*)?"
)


def uptime_seconds(container: Container, now: int) -> float | None:
    """Seconds since a running container was started; None when it is not running or the time is not known."""
    match = _PODMAN_TIME.fullmatch(container.started_at)
    if not container.running or not now:
        return None
    if container.started_at.isdecimal():
        return max(now - int(container.started_at), 0)
    if match is None:
        return None
    zone = (match["zone"] or "Z").replace("Z", "+00:00")
    started = datetime.strptime(f"{match['day']} {match['time']} {zone}", "%Y-%m-%d %H:%M:%S %z")
    return max(now - started.timestamp(), 0.0)


def _write_json(
    environment: Environment,
    asked: list[Target],
    states: Mapping[str, HostState],
    unreachable: Mapping[str, str],
    output: Output,
) -> None:
    from fabfile.report.json_lines import masked

    hosts = [_host_object(target, states[target.name]) for target in asked]
    hosts += [{"host": host, "healthy": False, "problems": [why]} for host, why in unreachable.items()]
    status = {
        "environment": environment.name,
        "healthy": all(host["healthy"] for host in hosts),
        "hosts": hosts,
    }
    output.write(json_format.dumps(masked(status, output), indent=2) + "\n")
    output.flush()


def _host_object(target: Target, state: HostState) -> dict[str, Any]:
    wrong = problems(target, state)
    last, lock = (state.releases[-1] if state.releases else None), state.lock
    return {
        "host": target.name,
        "address": target.address,
        "healthy": not wrong,
        "problems": list(wrong),
        "services": [_service_object(service, state) for service in target.application.services],
        "probes": [
            {"name": p.name, "url": p.url, "ok": p.ok, "detail": p.detail, "milliseconds": p.milliseconds}
            for p in state.probes
        ],
        "maintenance": state.fact("maintenance") or None,
        "last_backup": state.fact("last_backup") or None,
        "last_release": last
        and {
            "id": last.id,
            "time": last.time,
            "action": last.action,
            "outcome": last.outcome.value,
            "owner": last.owner,
            "reason": last.reason,
            "seconds": last.seconds,
        },
        "lock": lock
        and {
            "owner": lock.owner,
            "workstation": lock.workstation,
            "reason": lock.reason,
            "acquired_at": lock.acquired_at,
            "expires_at": lock.expires_at,
        },
    }


def _service_object(service: Service, state: HostState) -> dict[str, Any]:
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
