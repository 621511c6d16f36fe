"""The watchdog's rules: classify a health report, then decide on one recovery action.

Actions escalate: count failures, restart the container, then redeploy the release or roll back a fresh one, then give
up. Failures that no recovery can fix (a full disk, no memory, a dead Nginx) never start one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from rolling_upgrade.engine.model import Application, Check, HealthReport, Kind, Release, WatchRules
from rolling_upgrade.features.rollback import selection

#: Seconds between two prunes of a host that is short of disk or memory.
PRUNE_AGAIN_SECONDS = 3600.0


class FailureKind(str, Enum):
    """How a service fails: its container is stopped, it does not answer, it answers with an error, Podman restarted it
    after a crash, or it answers on its own port but not through Nginx."""

    STOPPED = "stopped"
    UNRESPONSIVE = "unresponsive"
    UNHEALTHY = "unhealthy"
    CRASHED = "crashed"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Failure:
    """A failing service and the check that found it.

    `failed_checks` counts failures since the previous observation: 0 for a crash from which Podman recovered the
    service, 2 where a quick request failed first. `crashes` counts Podman's restarts since then.
    """

    service: str
    kind: FailureKind
    reason: str
    failed_checks: int = 1
    crashes: int = 0


@dataclass(frozen=True)
class HealthObservation:
    """A health report, classified for the decision.

    `resource_pressure` describes the short resource, `accessory_down` an accessory that is not healthy, `unrecoverable` the reason why no recovery can help, `lock_holder`
    the owner and reason of the lock; each is '' otherwise. `release` is the id of the live release, `fresh` is True
    while it is young, `can_roll_back` if a good release precedes it.
    """

    services: tuple[str, ...]
    failures: tuple[Failure, ...] = ()
    resource_pressure: str = ""
    accessory_down: str = ""
    unrecoverable: str = ""
    lock_holder: str = ""
    release: str = ""
    fresh: bool = False
    can_roll_back: bool = False


@dataclass(frozen=True)
class FailureCounter:
    """Consecutive failures and successes of one service; the crashes and recovery attempts since the failure began.

    `since` is the time of the first failure, None while the service is healthy.
    """

    service: str
    failures: int = 0
    crashes: int = 0
    successes: int = 0
    attempts: int = 0
    since: float | None = None

    @property
    def worst(self) -> int:
        """The count that the limit of failures applies to."""
        return max(self.failures, self.crashes)


@dataclass(frozen=True)
class RecoveryState:
    """The state that the watchdog keeps between observations; times are seconds on a clock that never jumps.

    `accessory_was_down` is about the last observation.
    """

    counters: tuple[FailureCounter, ...] = ()
    recoveries: tuple[float, ...] = ()
    release: str = ""
    given_up: bool = False
    pruned_at: float | None = None
    accessory_was_down: bool = False

    def counter(self, service: str) -> FailureCounter:
        """The counter of a service; a new one for a service without failures so far."""
        return next((counter for counter in self.counters if counter.service == service), FailureCounter(service))

    def with_counter(self, counter: FailureCounter) -> RecoveryState:
        """The state with one counter replaced."""
        others = tuple(other for other in self.counters if other.service != counter.service)
        return replace(self, counters=(*others, counter))


class RecoveryAction(str, Enum):
    """The action that an observation leads to."""

    NOTHING = "nothing"
    WAIT = "wait"
    RESTART = "restart"
    REDEPLOY = "redeploy"
    ROLL_BACK = "roll back"
    PRUNE = "prune"
    GIVE_UP = "give up"


#: Actions that change the live containers; each writes a line of history and counts against the limit.
RECOVERIES = frozenset({RecoveryAction.RESTART, RecoveryAction.REDEPLOY, RecoveryAction.ROLL_BACK})


@dataclass(frozen=True)
class Decision:
    """One action, its service ('' for the whole host), and the reason."""

    action: RecoveryAction
    service: str = ""
    reason: str = ""


#: Podman's restarts of each container, by its name and release.
RestartCounts = Mapping[str, int]


def restart_counts(report: HealthReport) -> dict[str, int]:
    """Podman's restarts of each container so far."""
    return {f"{container.name} {container.release}": container.restarts for container in report.state.containers}


def classify(
    app: Application,
    report: HealthReport,
    previous: RestartCounts,
    releases: tuple[Release, ...],
    rules: WatchRules,
    missed: str = "",
) -> HealthObservation:
    """Classify a health report.

    Args:
        previous: the restarts at the observation before; empty at the first.
        missed: a service that just failed a quick request; its failure counts twice.
    """
    failed = {check.name: check for check in report.failed}
    failures = tuple(
        failure for service in app.services if (failure := _failure(service.name, report, failed, previous)) is not None
    )
    failures = tuple(
        replace(failure, failed_checks=2) if failure.service == missed else failure for failure in failures
    )
    chain = failed.get("full chain")
    if chain is not None and not failures and app.full_chain is not None:
        failures = (Failure(app.full_chain.service, FailureKind.UNREACHABLE, f"full chain: {chain.detail}"),)
    newest = next((release for release in reversed(releases) if release.good and is_deployment(release)), None)
    created = released_at(newest) if newest else None
    lock = report.state.held_lock
    return HealthObservation(
        services=tuple(service.name for service in app.services),
        failures=failures,
        resource_pressure="; ".join(check.detail for check in report.failed if check.kind in {Kind.DISK, Kind.MEMORY}),
        accessory_down="; ".join(
            f"{check.name}: {check.detail}" for check in report.failed if check.kind is Kind.ACCESSORY
        ),
        unrecoverable=_unrecoverable(app, report),
        lock_holder=f"{lock.owner}: {lock.reason}" if lock else "",
        release=newest.id if newest else "",
        fresh=created is not None and 0 <= report.state.now - created < rules.fresh_seconds,
        can_roll_back=bool(selection.candidates(releases, selection.running(replace(report.state, releases=releases)))),
    )


def is_deployment(release: Release) -> bool:
    """Whether a line of history activated another release; recoveries and restores keep the release."""
    return release.action in {"deploy", "rollback"}


def released_at(release: Release) -> float | None:
    """The time of a line of history in Unix seconds; None if the line has no valid time."""
    try:
        return datetime.fromisoformat(release.time).timestamp()
    except ValueError:
        return None


def _failure(
    service: str, report: HealthReport, failed: Mapping[str, Check], previous: RestartCounts
) -> Failure | None:
    crash = _crash(service, report, previous)
    for name in ("container", "http", "ready"):
        check = failed.get(f"{service} {name}")
        if check is None:
            continue
        if name != "container" and not check.answered and crash is not None:
            return crash
        answered = FailureKind.UNHEALTHY if check.answered else FailureKind.UNRESPONSIVE
        kind = FailureKind.STOPPED if name == "container" else answered
        return Failure(service, kind, f"{check.name}: {check.detail}")
    if crash is not None:
        return replace(crash, failed_checks=0)
    check = failed.get(f"{service} nginx")
    return Failure(service, FailureKind.UNREACHABLE, f"{check.name}: {check.detail}") if check else None


def _crash(service: str, report: HealthReport, previous: RestartCounts) -> Failure | None:
    """A restart by Podman since the previous observation; it also explains a container that does not answer yet."""
    live = report.state.container(service, report.state.active_color(service))
    if live is None:
        return None
    # A container created between two observations starts at 0; the first observation has no previous counts.
    unknown = 0 if previous else live.restarts
    crashes = live.restarts - previous.get(f"{live.name} {live.release}", unknown)
    reason = f"{live.name} crashed, Podman restarted it"
    return Failure(service, FailureKind.CRASHED, reason, crashes=crashes) if crashes > 0 else None


def _unrecoverable(app: Application, report: HealthReport) -> str:
    """Why no recovery can help: starting Nginx needs root."""
    nginx_names = {f"{service.name} nginx" for service in app.services}
    http_names = {f"{service.name} http" for service in app.services}
    nginx = [check for check in report.checks if check.name in nginx_names]
    http = [check for check in report.checks if check.name in http_names]
    if nginx and not any(check.answered for check in nginx) and all(check.ok for check in http):
        return "Nginx does not answer; starting it needs root"
    return ""


def decide(
    state: RecoveryState, observation: HealthObservation, rules: WatchRules, now: float
) -> tuple[RecoveryState, Decision]:
    """Decide on one action; the new state and the decision. `now` is seconds on a clock that never jumps."""
    if observation.lock_holder:
        # Another run is changing this host: neither failures nor successes count meanwhile.
        return state, Decision(RecoveryAction.NOTHING, reason=f"the lock is held: {observation.lock_holder}")
    is_back = state.accessory_was_down and not observation.accessory_down
    state = replace(_count_all(state, observation, rules, now), accessory_was_down=bool(observation.accessory_down))
    if is_back:
        # What failed until now had its cause in the accessory: otherwise a good release would be rolled back at once.
        state = replace(
            state, counters=tuple(replace(one, failures=0, crashes=0, attempts=0) for one in state.counters)
        )
    pressure = observation.resource_pressure
    if pressure and rules.enabled and _may_prune(state, now):
        return replace(state, pruned_at=now), Decision(RecoveryAction.PRUNE, reason=pressure)
    due = [failure for failure in observation.failures if state.counter(failure.service).worst >= rules.failures]
    if pressure or observation.accessory_down:
        # A restart frees neither disk nor memory, and repairs no database: start stopped containers only.
        due = [failure for failure in due if failure.kind is FailureKind.STOPPED]
    if due:
        return _recover(state, due[0], observation, rules)
    if observation.failures:
        worst = max(state.counter(failure.service).worst for failure in observation.failures)
        reason = f"{observation.failures[0].reason} ({worst} of {rules.failures})"
        if observation.accessory_down:
            reason += f"; {observation.accessory_down}"
        return state, Decision(RecoveryAction.WAIT, reason=reason)
    return state, Decision(RecoveryAction.WAIT if pressure else RecoveryAction.NOTHING, reason=pressure)


def after_recovery(state: RecoveryState, service: str, now: float) -> RecoveryState:
    """The state after a recovery, successful or not: it counts against the limit, and the counts restart at 0."""
    counter = state.counter(service)
    counter = replace(counter, failures=0, successes=0, crashes=0, attempts=counter.attempts + 1)
    return replace(state.with_counter(counter), recoveries=(*state.recoveries, now))


def _count_all(state: RecoveryState, observation: HealthObservation, rules: WatchRules, now: float) -> RecoveryState:
    """Count one observation. Another release, or enough successes, resets a watchdog that gave up."""
    if state.release != observation.release:
        state = RecoveryState(release=observation.release, recoveries=state.recoveries, pruned_at=state.pruned_at)
    failures = {failure.service: failure for failure in observation.failures}
    counters = tuple(_count(state.counter(name), failures.get(name), rules, now) for name in observation.services)
    healthy = all(counter.successes >= rules.failures for counter in counters)
    return replace(
        state,
        counters=counters,
        recoveries=tuple(at for at in state.recoveries if 0 <= now - at < rules.window_seconds),
        given_up=state.given_up and not healthy,
    )


def _count(counter: FailureCounter, failure: Failure | None, rules: WatchRules, now: float) -> FailureCounter:
    """Count one observation of one service.

    Crashes and attempts are kept until enough consecutive successes, so that a flapping service is one failure. Crashes
    have their own count: Podman restarts a crashed container itself, and observations between two crashes succeed.
    """
    if failure is None:
        successes = counter.successes + 1
        if successes >= rules.failures:
            return FailureCounter(counter.service, successes=successes)
        return replace(counter, failures=0, successes=successes)
    if counter.since is None:
        counter = replace(counter, since=now)
    if failure.kind is FailureKind.CRASHED:
        return replace(counter, failures=0, successes=0, crashes=counter.crashes + failure.crashes)
    return replace(counter, failures=counter.failures + failure.failed_checks, successes=0)


def _may_prune(state: RecoveryState, now: float) -> bool:
    return state.pruned_at is None or now - state.pruned_at >= PRUNE_AGAIN_SECONDS


def _recover(
    state: RecoveryState, failure: Failure, observation: HealthObservation, rules: WatchRules
) -> tuple[RecoveryState, Decision]:
    def decision(action: RecoveryAction, why: str = "") -> Decision:
        return Decision(action, failure.service, f"{failure.reason}; {why}" if why else failure.reason)

    if observation.unrecoverable or not rules.enabled or state.given_up:
        disabled = "recovery was given up" if state.given_up else "recovery is switched off"
        return state, decision(RecoveryAction.WAIT, observation.unrecoverable or disabled)
    if len(state.recoveries) >= rules.limit:
        why = f"{len(state.recoveries)} recoveries within {rules.window_seconds:g} s did not help"
        return replace(state, given_up=True), decision(RecoveryAction.GIVE_UP, why)
    return state, decision(_recovery(state.counter(failure.service), failure, observation))


def _recovery(counter: FailureCounter, failure: Failure, observation: HealthObservation) -> RecoveryAction:
    roll_back = observation.fresh and observation.can_roll_back
    # Podman has restarted crashed containers already. A fresh release that answers with an error would do so again.
    restartable = {FailureKind.STOPPED, FailureKind.UNRESPONSIVE}
    if not roll_back:
        restartable.add(FailureKind.UNHEALTHY)
    is_outside = observation.resource_pressure or observation.accessory_down
    if is_outside or (failure.kind in restartable and counter.attempts == 0):
        return RecoveryAction.RESTART
    return RecoveryAction.ROLL_BACK if roll_back else RecoveryAction.REDEPLOY
