"""Which alerts a look gives: one for one event, none for what a recovery mends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from fabfile.commands import verdict
from fabfile.model import Check, HealthReport, Kind
from fabfile.model.watch import Act, Ailment, Decision, Look, Memory, Pulse, Trouble, WatchRules
from fabfile.watchdog.alerting import alerts, counted
from tests.commands.sample import application
from tests.commands.test_state import EMPTY

RULES = WatchRules()
STATE = verdict.parse(application(), "web1", EMPTY).state
SITE = Check(Kind.HTTP, "site", False, "HTTP 502")
DISK = Check(Kind.DISK, "disk /", False, "4 % of disk free on /, wanted 10 %")
HTTP = Check(Kind.HTTP, "backend http", False, "no answer", "backend")
CHAIN = Check(Kind.HTTP, "full chain", False, "HTTP 502", "frontend")
SILENT = Trouble("backend", Ailment.SILENT, "backend http: no answer")
LOOK = Look(("backend", "frontend"), release="A")
ILL = replace(LOOK, troubles=(SILENT,))
WAIT, RESTART = Decision(Act.WAIT), Decision(Act.RESTART, "backend")


def named(
    checks: tuple[Check, ...],
    look: Look,
    decision: Decision = WAIT,
    pulse: Pulse | None = None,
    counts: Mapping[str, int] | None = None,
    *,
    given_up: bool = False,
) -> list[str]:
    """The names of the alerts of one look."""
    memory = Memory(pulses=(pulse,) if pulse else (), given_up=given_up)
    report = HealthReport(STATE, checks)
    found = alerts("web1", "production", report, look, decision, memory, counts or {}, RULES)
    return [f"{one.check}{' given up' if one.given_up else ''}" for one in found]


@pytest.mark.parametrize(
    ("decision", "pulse", "expected"),
    [
        (WAIT, Pulse("backend", bad=2), []),
        # The recovery that begins now has a message of its own.
        (RESTART, Pulse("backend", bad=3), []),
        (Decision(Act.RESTART, "frontend"), Pulse("backend", bad=3), ["backend"]),
        # It is switched off, or the lock is held, or nothing could help.
        (WAIT, Pulse("backend", bad=3), ["backend"]),
        (WAIT, Pulse("backend", crashes=3), ["backend"]),
        # One recovery did not help: the next may. Two did not.
        (WAIT, Pulse("backend", bad=1, tried=1), []),
        (WAIT, Pulse("backend", bad=1, tried=2), ["backend"]),
        (Decision(Act.REDEPLOY, "backend"), Pulse("backend", bad=3, tried=2), ["backend"]),
    ],
)
def test_alerts_of_a_service_that_is_unwell(decision: Decision, pulse: Pulse, expected: list[str]) -> None:
    assert named((HTTP,), ILL, decision, pulse) == expected


def test_alerts_after_giving_up_say_so() -> None:
    assert named((HTTP,), ILL, Decision(Act.GIVE_UP, "backend"), given_up=True) == ["backend given up"]


def test_alerts_of_everything_that_hangs_on_one_service_are_one() -> None:
    many = {"backend http": 9, "full chain": 9, "site": 9}

    assert named((HTTP, CHAIN, SITE), ILL, WAIT, Pulse("backend", bad=3), many) == ["backend"]


def test_alerts_of_one_service_tell_all_of_its_checks() -> None:
    nginx = replace(HTTP, name="backend nginx", detail="HTTP 502")
    report = HealthReport(STATE, (HTTP, nginx, CHAIN))

    (alert,) = alerts("web1", "production", report, ILL, WAIT, Memory(given_up=True), {}, RULES)

    assert alert.cause == "backend http: no answer\nbackend nginx: HTTP 502"
    assert alert.next_command == "inv inspect --env production --host web1"


def test_alerts_of_other_checks_come_with_the_third_look() -> None:
    assert named((DISK,), LOOK, counts={"disk /": 2}) == []
    assert named((DISK, SITE), LOOK, counts={"disk /": 3, "site": 3}) == ["disk /", "site"]


def test_alerts_with_a_dead_nginx_are_one() -> None:
    dead = replace(ILL, hopeless="Nginx does not answer; starting it needs root")

    assert named((HTTP, SITE), dead, WAIT, Pulse("backend", bad=9), {"site": 9}) == ["nginx"]


def test_counted_only_what_fails_again_and_again() -> None:
    report = HealthReport(STATE, (DISK, replace(SITE, ok=True)))

    assert counted({"disk /": 2, "site": 5}, report) == {"disk /": 3}
