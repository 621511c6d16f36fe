"""Doctor: look at this machine and at every host, say what is not well and what to do about it. Changes nothing."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from fabfile import config, render
from fabfile.commands import examination, journal, podman
from fabfile.errors import ExitCode, HostUnreachable, PreflightError
from fabfile.model import Diagnosis, HostState, Level, Transfer
from fabfile.plans.diagnosis import Asked, diagnose
from fabfile.remote import observe
from fabfile.remote.host import Host
from fabfile.report import tell
from fabfile.report.diagnosis import diagnosis_json, diagnosis_lines
from fabfile.workflows import workstation
from fabfile.workflows.fleet import Fleet, opened

Looked = tuple[HostState, tuple[Diagnosis, ...]]


def doctor(environment: str | None, *, root: Path, hosts: tuple[str, ...] = (), json: bool = False) -> ExitCode:
    """Print every diagnosis; REFUSED when a deploy would be refused or a host cannot be reached."""
    wanted = config.load(environment, root=root, hosts=hosts)
    with opened(wanted) as fleet:
        looked = observe.on_each(fleet.hosts, wanted.rollout.parallel, lambda host: _examine(host, fleet))
        rows = [*workstation.diagnose(wanted, root)]
        for name, found in looked.items():
            rows += _unreached(name, found) if isinstance(found, HostUnreachable) else found[1]
        rows += _registries(fleet, {name: one[0] for name, one in looked.items() if isinstance(one, tuple)})
    refused = any(row.level is Level.REFUSED for row in rows)
    lines = [diagnosis_json(wanted.name, rows, wanted.secrets)] if json else diagnosis_lines(wanted.name, rows)
    tell(lines, sys.stdout, wanted.secrets)
    return ExitCode.REFUSED if refused else ExitCode.DONE


def _examine(host: Host, fleet: Fleet) -> Looked:
    app = fleet.targets[host.name].application
    before = time.time()
    answer = host.run(examination.examine(app), timeout_seconds=observe.OBSERVE_SECONDS)
    after = time.time()
    try:
        state = observe.read(app, host.name, answer.output, answer.last_words)
    except PreflightError as error:
        raise HostUnreachable(error.message, next_step=error.next_step) from error
    sums = [hashlib.sha256(render.host_program(name).encode()).hexdigest() for name in ("site", "boot")]
    return state, diagnose(state, app, Asked(examination.parse(answer.output), before, after, *sums))


def _unreached(name: str, error: HostUnreachable) -> list[Diagnosis]:
    return [Diagnosis(name, Level.REFUSED, error.message, error.next_step)]


def _registries(fleet: Fleet, states: Mapping[str, HostState]) -> list[Diagnosis]:
    """Whether each host gets an answer for its images: the first that can ask decides, as for a deploy."""
    if fleet.environment.rollout.transfer is Transfer.PUSH:
        return []
    able = [host for host in fleet.hosts if host.name in states and states[host.name].fact("has_skopeo") == "yes"]
    rows = [
        Diagnosis(name, Level.WARNING, "skopeo is missing: another host has to ask for digests", "Install skopeo")
        for name, state in states.items()
        if state.fact("has_skopeo") != "yes"
    ]
    if states and not able:
        what = "skopeo is missing everywhere: only images named by digest can be deployed"
        rows.append(Diagnosis(next(iter(states)), Level.REFUSED, what, "Install skopeo on a host"))
    found = observe.on_each(able, fleet.environment.rollout.parallel, lambda host: _registry(host, fleet))
    for number, host in enumerate(able):
        answer = found[host.name]
        if isinstance(answer, HostUnreachable):
            rows += _unreached(host.name, answer)
        elif answer:
            level = Level.WARNING if number else Level.REFUSED
            remedy = "Check tag, registry and login: podman login --authfile ~/.config/containers/auth.json REGISTRY"
            rows += [Diagnosis(host.name, level, f"no digest for {words}", remedy) for words in answer]
        else:
            rows.append(Diagnosis(host.name, Level.OK, "the registry answers for every image"))
    return rows


def _registry(host: Host, fleet: Fleet) -> list[str]:
    """What the registries refuse, a line for each image."""
    images = [service.image for service in fleet.targets[host.name].application.services if not service.image.digest]
    if not images:
        return []
    answer = host.run(journal.direct(podman.resolve(images)), timeout_seconds=observe.RESOLVE_SECONDS)
    refused = [line.removeprefix("! ") for line in answer.output.splitlines() if line.startswith("! ")]
    return refused or ([] if answer.ok else [answer.last_words])
