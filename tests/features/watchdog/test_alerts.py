"""Alerts of an observation: one for each failure, none for a failure that a recovery fixes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from rolling_upgrade.engine.model import Check, HealthReport, Kind, RolloutPolicy, WatchRules
from rolling_upgrade.features.health import shell as health
from rolling_upgrade.features.watchdog.alerts import alerts, count_failures
from rolling_upgrade.features.watchdog.policy import (
    Decision,
    Failure,
    FailureCounter,
    FailureKind,
    HealthObservation,
    RecoveryAction,
    RecoveryState,
)
from rolling_upgrade.features.watchdog.state_store import Settings
from tests.engine.test_observation import EMPTY
from tests.support.sample import application

SETTINGS = Settings("shop", "web1", "production", WatchRules(), RolloutPolicy())
STATE = health.parse(application(), "web1", EMPTY).state
SITE = Check(Kind.HTTP, "site", False, "HTTP 502")
DISK = Check(Kind.DISK, "disk /", False, "4 % of disk free on /, required 10 %")
HTTP = Check(Kind.HTTP, "backend http", False, "no answer", "backend")
CHAIN = Check(Kind.HTTP, "full chain", False, "HTTP 502", "frontend")
UNRESPONSIVE = Failure("backend", FailureKind.UNRESPONSIVE, "backend http: no answer")
HEALTHY = HealthObservation(("backend", "frontend"), release="A")
FAILING = replace(HEALTHY, failures=(UNRESPONSIVE,))
WAIT, RESTART = Decision(RecoveryAction.WAIT), Decision(RecoveryAction.RESTART, "backend")


def named(
    checks: tuple[Check, ...],
    observation: HealthObservation,
    decision: Decision = WAIT,
    counter: FailureCounter | None = None,
    counts: Mapping[str, int] | None = None,
    *,
    given_up: bool = False,
) -> list[str]:
    """The names of the alerts of one observation."""
    state = RecoveryState(counters=(counter,) if counter else (), given_up=given_up)
    report = HealthReport(STATE, checks)
    found = alerts(SETTINGS, report, observation, decision, state, counts or {})
    return [f"{alert.check}{' given up' if alert.given_up else ''}" for alert in found]


@pytest.mark.parametrize(
    ("decision", "counter", "expected"),
    [
        (WAIT, FailureCounter("backend", failures=2), []),
        # The recovery that starts now sends its own message.
        (RESTART, FailureCounter("backend", failures=3), []),
        (Decision(RecoveryAction.RESTART, "frontend"), FailureCounter("backend", failures=3), ["backend"]),
        # Recovery is switched off, or nothing can help.
        (WAIT, FailureCounter("backend", failures=3), ["backend"]),
        (WAIT, FailureCounter("backend", crashes=3), ["backend"]),
        # After one failed recovery the next may help; after two the alert is sent.
        (WAIT, FailureCounter("backend", failures=1, attempts=1), []),
        (WAIT, FailureCounter("backend", failures=1, attempts=2), ["backend"]),
        (Decision(RecoveryAction.REDEPLOY, "backend"), FailureCounter("backend", failures=3, attempts=2), ["backend"]),
    ],
)
def test_alerts_of_a_failing_service(decision: Decision, counter: FailureCounter, expected: list[str]) -> None:
    assert named((HTTP,), FAILING, decision, counter) == expected


def test_alerts_after_giving_up_are_marked() -> None:
    assert named((HTTP,), FAILING, Decision(RecoveryAction.GIVE_UP, "backend"), given_up=True) == ["backend given up"]


def test_alerts_of_every_check_that_depends_on_one_service_are_one() -> None:
    many = {"backend http": 9, "full chain": 9, "site": 9}

    assert named((HTTP, CHAIN, SITE), FAILING, WAIT, FailureCounter("backend", failures=3), many) == ["backend"]


def test_alert_of_a_service_lists_all_its_failing_checks() -> None:
    nginx = replace(HTTP, name="backend nginx", detail="HTTP 502")
    report = HealthReport(STATE, (HTTP, nginx, CHAIN))

    (alert,) = alerts(SETTINGS, report, FAILING, WAIT, RecoveryState(given_up=True), {})

    assert alert.cause == "backend http: no answer\nbackend nginx: HTTP 502"
    assert alert.next_command == "rolling-upgrade inspect --env production --host web1"


def test_alerts_of_other_checks_start_at_the_third_failure() -> None:
    assert named((DISK,), HEALTHY, counts={"disk /": 2}) == []
    assert named((DISK, SITE), HEALTHY, counts={"disk /": 3, "site": 3}) == ["disk /", "site"]


def test_alert_of_a_failed_job_is_sent_at_once() -> None:
    """Its next run may be soon, and succeed."""
    job = Check(Kind.JOB, "cleanup job", False, "exit code 7")

    assert named((job,), HEALTHY, counts={"cleanup job": 1}) == ["cleanup job"]
    assert named((replace(job, ok=True),), HEALTHY) == []


def test_alerts_with_a_dead_nginx_are_one() -> None:
    dead = replace(FAILING, unrecoverable="Nginx does not answer; starting it needs root")

    assert named((HTTP, SITE), dead, WAIT, FailureCounter("backend", failures=9), {"site": 9}) == ["nginx"]


def test_count_failures_drops_checks_that_passed() -> None:
    report = HealthReport(STATE, (DISK, replace(SITE, ok=True)))

    assert count_failures({"disk /": 2, "site": 5}, report) == {"disk /": 3}
