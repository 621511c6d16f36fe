"""The start of a run: whether a plan is still valid, and the step that acquires the lock and observes again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolling_upgrade.engine import locking
from rolling_upgrade.engine.model import Color, HostState, Lock, ProbeResult
from tests.support.sample import application, backend
from tests.support.states import as_wanted, container, recorded

APP = application()
SEEN = as_wanted(APP)
LOCK = Lock("r2", "ann", "laptop", 41, "deploy v2", 0, 0)


@pytest.mark.parametrize(
    "changed",
    [
        {"now": 99},
        {"lock": LOCK},
        {"probes": (ProbeResult("backend", "u", False, "HTTP 502"),)},
        {"facts": (("free_kib", "1"),)},
        {"listening": (1, 2)},
        {"containers": tuple(reversed(SEEN.containers))},
        {"containers": tuple(replace(one, restarts=3, started_at="later") for one in SEEN.containers)},
    ],
)
def test_plan_still_fits_ignores_irrelevant_changes(changed: dict[str, object]) -> None:
    assert locking.plan_still_fits(SEEN, replace(SEEN, **changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed",
    [
        {"active": (("backend", Color.GREEN),)},
        {"containers": ()},
        {"containers": tuple(replace(one, running=False) for one in SEEN.containers)},
        {"containers": tuple(replace(one, spec="another") for one in SEEN.containers)},
        {"containers": (*SEEN.containers, container(backend(), Color.GREEN))},
        {"live_site_hash": "another"},
        {"releases": (*SEEN.releases, replace(recorded(APP), id="r9"))},
    ],
)
def test_plan_still_fits_is_false_after_a_relevant_change(changed: dict[str, object]) -> None:
    assert not locking.plan_still_fits(SEEN, replace(SEEN, **changed))  # type: ignore[arg-type]


def test_plan_still_fits_order_of_flags_is_ignored() -> None:
    one, two = ("backend", Color.GREEN), ("frontend", Color.GREEN)

    assert locking.plan_still_fits(replace(SEEN, active=(one, two)), replace(SEEN, active=(two, one)))


def test_acquire_step_takes_the_lock_then_waits_for_a_stage_then_observes() -> None:
    text = locking.acquire_step(APP, LOCK, lease_seconds=60).script.text

    assert text.index("lock/guard") < text.index("lock/stage") < text.index("@@facts")


def test_acquire_step_has_time_to_wait_for_a_dead_runs_stage() -> None:
    assert locking.acquire_step(APP, LOCK, lease_seconds=60).timeout_seconds > 120


def test_plan_still_fits_a_bare_host() -> None:
    assert locking.plan_still_fits(HostState("web1"), HostState("web1", now=5))
