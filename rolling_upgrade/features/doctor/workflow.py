"""`inv doctor`: check this machine and every host, and print each finding with its remedy."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rolling_upgrade import config, rendering
from rolling_upgrade.console.output import print_result
from rolling_upgrade.console.text import count, diagnosis_lines
from rolling_upgrade.engine import observation
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.model import Diagnosis, HostState, Image, Level, Transfer
from rolling_upgrade.errors import PROGRAM, ExitCode, HostUnreachable, PreflightError
from rolling_upgrade.features.deploy.digests import WITNESSES, can_ask_here, disagreements, resolve_on_host
from rolling_upgrade.features.doctor import workstation
from rolling_upgrade.features.doctor.diagnosis import HostFacts, diagnose, fact_script, parse_facts
from rolling_upgrade.ssh.fleet import Fleet, opened

#: The errors of registries without a login. Source: OCI distribution specification, UNAUTHORIZED.
_NO_LOGIN = re.compile(r"authentication required|unauthorized", re.IGNORECASE)
HostReport = tuple[HostState, tuple[Diagnosis, ...]]


def doctor(env: str | None, *, root: Path, hosts: tuple[str, ...] = (), json: bool = False) -> ExitCode:
    """Print every diagnosis. REFUSED when a deploy would be refused or a host is unreachable."""
    environment = config.load(env, root=root, hosts=hosts)
    with opened(environment) as fleet:
        reports = fleet.on_each(lambda host: _examine(host, fleet))
        rows = [*workstation.diagnose(environment, root)]
        for name, report in reports.items():
            rows += _unreachable(name, report) if isinstance(report, HostUnreachable) else report[1]
        rows += _registries(fleet, {name: report[0] for name, report in reports.items() if isinstance(report, tuple)})
    view = doctor_json if json else doctor_lines
    print_result(view(environment.name, rows), environment.secrets)
    return ExitCode.REFUSED if _refused(rows) else ExitCode.DONE


def _examine(host: Host, fleet: Fleet) -> HostReport:
    app = fleet.targets[host.name].application
    before = time.time()
    answer = host.run(fact_script(app), timeout_seconds=observation.OBSERVE_SECONDS)
    after = time.time()
    state = observation.from_answer(app, host.name, answer)
    facts = HostFacts(
        parse_facts(answer.output),
        before,
        after,
        site_hash=rendering.site_hash(rendering.nginx_site(app)),
        program_sum=rendering.site_program_sum(),
        boot_sum=hashlib.sha256(rendering.host_program("boot").encode()).hexdigest(),
    )
    return state, diagnose(state, app, facts)


def _unreachable(name: str, error: HostUnreachable) -> list[Diagnosis]:
    return [Diagnosis(name, Level.REFUSED, error.message, error.next_step)]


def _registries(fleet: Fleet, states: Mapping[str, HostState]) -> list[Diagnosis]:
    """Check that the registries give each host the same digests; a deploy asks the first two hosts."""
    if fleet.environment.rollout.transfer is Transfer.PUSH:
        return []
    capable = [host for host in fleet.hosts if host.name in states and states[host.name].fact("has_skopeo") == "yes"]
    rows = [
        Diagnosis(name, Level.WARNING, "skopeo is missing: another host has to resolve digests", "Install skopeo")
        for name, state in states.items()
        if state.fact("has_skopeo") != "yes"
    ]
    if states and not capable:
        problem = "skopeo is missing on every host: only a workstation with skopeo can resolve the digest of a tag"
        level = Level.WARNING if can_ask_here() else Level.REFUSED
        rows.append(Diagnosis(next(iter(states)), level, problem, "Install skopeo on a host"))
    answers: dict[str, dict[str, Image]] = {}
    found = fleet.on_each(lambda host: _registry(host, fleet, answers), hosts=capable)
    ordered = {host.name: answers[host.name] for host in capable if host.name in answers}
    remedy = "Compare their registries.conf, in /etc/containers and in ~/.config/containers of the deploy user"
    rows += [
        Diagnosis(next(iter(ordered)), Level.REFUSED, f"hosts disagree about a digest: {detail}", remedy)
        for detail in disagreements(ordered)
    ]
    for number, host in enumerate(capable):
        answer = found[host.name]
        if isinstance(answer, HostUnreachable):
            rows += _unreachable(host.name, answer)
        elif answer:
            is_witness, login = number < WITNESSES, fleet.targets[host.name].application.login
            rows += [
                _unresolved(host.name, error, is_witness=is_witness, logs_in=login is not None) for error in answer
            ]
        else:
            rows.append(Diagnosis(host.name, Level.OK, "the registry answers for every image"))
    return rows


def _unresolved(host: str, error: str, *, is_witness: bool, logs_in: bool) -> Diagnosis:
    """Diagnose a refusal of a registry. A missing login is only a warning if a deploy logs in by itself."""
    if logs_in and _NO_LOGIN.search(error):
        remedy = f"A deploy logs in with REGISTRY_USERNAME; {PROGRAM} registry.login does so now"
        return Diagnosis(host, Level.WARNING, f"not logged in yet: {error}", remedy)
    remedy = "Check tag, registry and login: podman login --authfile ~/.config/containers/auth.json REGISTRY"
    return Diagnosis(host, Level.REFUSED if is_witness else Level.WARNING, f"no digest for {error}", remedy)


def _registry(host: Host, fleet: Fleet, answers: dict[str, dict[str, Image]]) -> list[str]:
    """Return one line for each image that a registry refuses; the digests go to `answers`."""
    images = [service.image for service in fleet.targets[host.name].application.services if not service.image.digest]
    if not images:
        return []
    try:
        answers[host.name] = resolve_on_host(host, images)
    except PreflightError as error:
        return [line.strip() for line in error.message.splitlines()[1:]] or [error.message]
    return []


_LABELS = {Level.OK: "ok", Level.WARNING: "warning", Level.REFUSED: "REFUSED"}


def doctor_lines(environment: str, rows: Sequence[Diagnosis]) -> list[str]:
    """Return the findings of each host with their remedies, then the verdict."""
    warnings = sum(row.level is Level.WARNING for row in rows)
    refused = _refused(rows)
    verdict = f"a deploy would be refused, {count(refused, 'reason')}" if refused else "a deploy would not be refused"
    return [*diagnosis_lines(rows, _LABELS), "", f"{environment}: {verdict}; {count(warnings, 'warning')}"]


def doctor_json(environment: str, rows: Sequence[Diagnosis]) -> dict[str, Any]:
    """Return the report as a JSON object."""
    return {"environment": environment, "refused": _refused(rows) > 0, "findings": rows}


def _refused(rows: Sequence[Diagnosis]) -> int:
    return sum(row.level is Level.REFUSED for row in rows)
