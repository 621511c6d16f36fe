"""Which alerts a look gives: one for each service that is unwell, one for each other check. Pure.

A service that a recovery is about to help, or was just helped, is not told of: the recovery has a message of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fabfile.model import Check, HealthReport, Kind
from fabfile.model.watch import RECOVERIES, Decision, Look, Memory, Trouble, WatchRules
from fabfile.notify.holding import Alert

#: Checks that belong to services; while one of those is unwell they are part of its alert.
_OF_SERVICES = {Kind.CONTAINER, Kind.HTTP}
#: How many recoveries may fail to help a service before people are told that it is unwell.
_SILENT_TRIES = 1

#: Consecutive looks that found a check failing, by its name.
Counts = Mapping[str, int]


def counted(counts: Counts, report: HealthReport) -> dict[str, int]:
    """The counts after one more look."""
    return {check.name: counts.get(check.name, 0) + 1 for check in report.failed}


def alerts(
    host: str,
    environment: str,
    report: HealthReport,
    look: Look,
    decision: Decision,
    memory: Memory,
    counts: Counts,
    rules: WatchRules,
) -> tuple[Alert, ...]:
    """Every alert that stands after a look: its decision, the memory and the counts are those after it."""
    command = f"inv health --env {environment} --hosts {host} --once --verbose"
    if look.hopeless:
        found = [Alert(host, "nginx", look.hopeless, command)]
    else:
        ill = [one for one in look.troubles if _is_told(one, decision, memory, rules)]
        found = [_of_service(host, environment, one, report, command, memory) for one in ill]
    return (*found, *(Alert(host, one.name, one.detail, command) for one in _others(report, look, counts, rules)))


def _is_told(trouble: Trouble, decision: Decision, memory: Memory, rules: WatchRules) -> bool:
    pulse = memory.pulse(trouble.service)
    if memory.given_up or pulse.tried > _SILENT_TRIES:
        return True
    helped = decision.act in RECOVERIES and decision.service == trouble.service
    return not helped and max(pulse.bad, pulse.crashes) >= rules.failures


def _of_service(
    host: str, environment: str, trouble: Trouble, report: HealthReport, command: str, memory: Memory
) -> Alert:
    """One alert with whatever of the service fails; after giving up, with the page of everything that is there."""
    own = [check for check in report.failed if check.kind in _OF_SERVICES and check.service == trouble.service]
    cause = "\n".join(f"{check.name}: {check.detail}" for check in own) or trouble.reason
    if memory.given_up:
        return Alert(host, trouble.service, cause, f"inv inspect --env {environment} --host {host}", given_up=True)
    return Alert(host, trouble.service, cause, command)


def _others(report: HealthReport, look: Look, counts: Counts, rules: WatchRules) -> Iterator[Check]:
    for check in report.failed:
        covered = check.kind in _OF_SERVICES and (look.troubles or look.hopeless)
        if not covered and counts.get(check.name, 0) >= rules.failures:
            yield check
