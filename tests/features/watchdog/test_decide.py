"""The watchdog's decisions as tables: a sequence of observations in, a sequence of actions out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolling_upgrade.engine.model import WatchRules
from rolling_upgrade.features.watchdog.policy import (
    PRUNE_AGAIN_SECONDS,
    RECOVERIES,
    Failure,
    FailureKind,
    HealthObservation,
    RecoveryAction,
    RecoveryState,
    after_recovery,
    decide,
)

RULES = WatchRules()
HEALTHY = HealthObservation(("backend", "frontend"), release="A")
UNHEALTHY = replace(HEALTHY, failures=(Failure("backend", FailureKind.UNHEALTHY, "HTTP 503"),))
STOPPED = replace(HEALTHY, failures=(Failure("backend", FailureKind.STOPPED, "exited"),))
UNRESPONSIVE = replace(HEALTHY, failures=(Failure("backend", FailureKind.UNRESPONSIVE, "no answer"),))
CRASHED = replace(HEALTHY, failures=(Failure("backend", FailureKind.CRASHED, "crashed", crashes=1),))
UNREACHABLE = replace(HEALTHY, failures=(Failure("frontend", FailureKind.UNREACHABLE, "502"),))
LETTERS = {
    RecoveryAction.NOTHING: ".",
    RecoveryAction.WAIT: "w",
    RecoveryAction.RESTART: "R",
    RecoveryAction.REDEPLOY: "D",
    RecoveryAction.ROLL_BACK: "B",
    RecoveryAction.PRUNE: "P",
    RecoveryAction.GIVE_UP: "G",
}


def actions(observations: list[HealthObservation], rules: WatchRules = RULES, every: float = 5.0) -> str:
    """The action after each observation; every recovery runs as decided."""
    state, now, letters = RecoveryState(), 1000.0, ""
    for observation in observations:
        state, decision = decide(state, observation, rules, now)
        letters += LETTERS[decision.action]
        if decision.action in RECOVERIES:
            state = after_recovery(state, decision.service, now)
        now += every
    return letters


def fresh(observation: HealthObservation) -> HealthObservation:
    return replace(observation, fresh=True, can_roll_back=True)


@pytest.mark.parametrize(
    "observations, expected",
    [
        ([HEALTHY] * 3, "..."),
        ([UNRESPONSIVE] * 2 + [HEALTHY], "ww."),
        ([UNRESPONSIVE] * 3 + [HEALTHY] * 2, "wwR.."),
        ([STOPPED] * 3, "wwR"),
        # The restart did not help: redeploy the release.
        ([UNRESPONSIVE] * 6, "wwRwwD"),
        # A fresh release is rolled back instead, where an earlier one exists.
        ([fresh(UNRESPONSIVE)] * 6, "wwRwwB"),
        ([replace(UNRESPONSIVE, fresh=True)] * 6, "wwRwwD"),
        ([replace(UNRESPONSIVE, can_roll_back=True)] * 6, "wwRwwD"),
        # An unhealthy service is restarted once; a fresh release would answer with the same error.
        ([UNHEALTHY] * 6, "wwRwwD"),
        ([fresh(UNHEALTHY)] * 3, "wwB"),
        # A service that answers on its own port is not restarted.
        ([UNREACHABLE] * 3, "wwD"),
        ([fresh(UNREACHABLE)] * 3, "wwB"),
        # Podman's restarts did not help; observations in between succeed.
        ([CRASHED, HEALTHY, CRASHED, HEALTHY, CRASHED], "w.w.D"),
        ([CRASHED, HEALTHY, HEALTHY, HEALTHY, CRASHED, CRASHED], "w...ww"),
        ([fresh(CRASHED)] * 3, "wwB"),
        # It gives up after three recoveries, once.
        ([UNRESPONSIVE] * 14, "wwRwwDwwDwwGww"),
        # A service that flaps below the limit starts no recovery.
        ([UNRESPONSIVE, UNRESPONSIVE, HEALTHY] * 6, "ww." * 6),
        # A service that flaps above the limit is one failure: the restart is not repeated.
        (([UNRESPONSIVE] * 3 + [HEALTHY]) * 3, "wwR.wwD.wwD."),
        # Enough consecutive successes end the failure.
        ([UNRESPONSIVE] * 3 + [HEALTHY] * 3 + [UNRESPONSIVE] * 3, "wwR...wwR"),
        # After giving up it resumes when all services are healthy, or another release is live.
        ([UNRESPONSIVE] * 12 + [HEALTHY] * 3 + [UNRESPONSIVE] * 3, "wwRwwDwwDwwG...wwG"),
        # Two failing services: one action at a time.
        ([replace(HEALTHY, failures=STOPPED.failures + UNREACHABLE.failures)] * 5, "wwRDw"),
    ],
)
def test_decide_sequences_of_observations(observations: list[HealthObservation], expected: str) -> None:
    assert actions(observations) == expected


def test_decide_after_the_window_recovers_again() -> None:
    assert actions([UNRESPONSIVE] * 12, replace(RULES, window_seconds=45)) == "wwRwwDwwDwwD"


def test_decide_resumes_with_another_release() -> None:
    assert actions(
        [UNRESPONSIVE] * 12 + [replace(UNRESPONSIVE, release="B")] * 3, replace(RULES, window_seconds=60)
    ).endswith("GwwR")


@pytest.mark.parametrize("observation", [UNRESPONSIVE, STOPPED, UNREACHABLE, HEALTHY])
def test_decide_while_another_run_holds_the_lock_counts_nothing(observation: HealthObservation) -> None:
    held = replace(observation, lock_holder="root: deploy v2")
    assert (
        actions([observation] * 2 + [held] * 9 + [HEALTHY]) == ("ww" if observation.failures else "..") + "." * 9 + "."
    )
    state, _ = decide(RecoveryState(), held, RULES, 0)
    assert state == RecoveryState()


def test_decide_while_an_accessory_is_down_only_starts_stopped_containers() -> None:
    """Not even a fresh release is rolled back, because the database is the cause."""
    assert actions([replace(UNHEALTHY, accessory_down="db")] * 6) == "wwwwww"
    assert actions([fresh(replace(UNRESPONSIVE, accessory_down="db"))] * 6) == "wwwwww"
    assert actions([fresh(replace(STOPPED, accessory_down="db"))] * 6) == "wwRwwR"
    assert actions([replace(HEALTHY, accessory_down="db")] * 3) == "..."


def test_decide_after_an_accessory_was_down_counts_failures_anew() -> None:
    """Services need a moment until they reach the database again, and a good release is not rolled back for that."""
    down = fresh(replace(CRASHED, accessory_down="db"))

    assert actions([*[down] * 5, fresh(CRASHED), fresh(HEALTHY), fresh(HEALTHY), fresh(HEALTHY)]) == "wwwwww..."
    assert actions([*[down] * 5, *[fresh(CRASHED)] * 4]) == "wwwwwwwwB"


def test_decide_under_resource_pressure_prunes_and_starts_stopped_containers_only() -> None:
    assert actions([replace(UNRESPONSIVE, resource_pressure="disk / 3 % free")] * 6) == "Pwwwww"
    assert actions([replace(HEALTHY, resource_pressure="memory")] * 3) == "Pww"
    assert actions([replace(STOPPED, resource_pressure="memory")] * 9) == "PwRwwRwwR"
    again = int(PRUNE_AGAIN_SECONDS / 600)
    assert (
        actions([replace(HEALTHY, resource_pressure="disk /")] * (again + 1), every=600)
        == "P" + "w" * (again - 1) + "P"
    )


def test_decide_unrecoverable_failure_starts_no_recovery() -> None:
    assert actions([replace(UNRESPONSIVE, unrecoverable="Nginx does not run")] * 9) == "w" * 9


def test_decide_with_recovery_switched_off_only_waits() -> None:
    off = replace(RULES, enabled=False)
    assert actions([UNRESPONSIVE] * 9, off) == "w" * 9
    assert actions([replace(HEALTHY, resource_pressure="disk /")] * 3, off) == "www"


@given(
    st.lists(
        st.sampled_from(
            [
                HEALTHY,
                UNRESPONSIVE,
                STOPPED,
                CRASHED,
                UNREACHABLE,
                fresh(UNRESPONSIVE),
                replace(UNRESPONSIVE, resource_pressure="disk"),
            ]
        ),
        max_size=90,
    )
)
def test_decide_never_recovers_more_often_than_the_limit(observations: list[HealthObservation]) -> None:
    letters = actions(observations)
    window = int(RULES.window_seconds / 5)
    for start in range(len(letters)):
        assert sum(letter in "RDB" for letter in letters[start : start + window]) <= RULES.limit
