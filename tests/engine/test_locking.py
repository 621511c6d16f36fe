"""The start of a run: acquire the locks, observe again, and decide whether a plan is still valid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from threading import Event

import pytest

from rolling_upgrade.engine import lock_file, locking
from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.model import Color, HostState, Lock, ProbeResult
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import LockHeld, RollingError, StepFailed, StepRunning
from tests.support.sample import LOCK, application, backend
from tests.support.scripted_host import APP, Scene
from tests.support.states import as_wanted, container, recorded


def attempt(refused: str = "") -> tuple[list[list[str]], list[str], list[str]]:
    """Acquire the locks of a, b and c; return the requested groups, the acquired locks and the released locks."""
    asked: list[list[str]] = []
    freed: list[str] = []

    def take(group: Sequence[str]) -> list[str | RollingError]:
        asked.append(list(group))
        return [LockHeld(f"{one}: locked by eve") if one == refused else one for one in group]

    try:
        had = locking.acquire_all(["a", "b", "c"], take, freed.append)
    except LockHeld:
        had = []
    return asked, had, freed


def test_acquire_all_first_lock_is_acquired_alone() -> None:
    assert attempt() == ([["a"], ["b", "c"]], ["a", "b", "c"], [])


def test_acquire_all_refused_by_the_first_contacts_no_other() -> None:
    assert attempt("a") == ([["a"]], [], [])


def test_acquire_all_refused_later_releases_all_locks() -> None:
    assert attempt("b") == ([["a"], ["b", "c"]], [], ["a", "c"])


@pytest.mark.parametrize(
    ("token", "pid", "said", "next_step"),
    [
        (
            "r2",
            41,
            "(process 41): disk, for 40 s so far; its lease expires in 60 s unless renewed",
            "rolling-upgrade attach",
        ),
        (
            "manual-1",
            0,
            "(by hand): disk, for 40 s so far; its lease expires in 60 s.",
            "rolling-upgrade lock.release --env lab",
        ),
    ],
)
def test_held_error_names_holder_lease_and_next_command(token: str, pid: int, said: str, next_step: str) -> None:
    error = locking.held_error("web1", Lock(token, "ann", "laptop", pid, "disk", 60, 160), "lab", 100)

    assert locking.is_held_by_other(error)
    assert said in error.message
    assert next_step in error.next_step


def test_acquire_while_a_step_of_an_earlier_run_runs_still_holds_the_lock() -> None:
    host = Scene().host_run("web1", lock=[Answer(lock_file.BUSY_STATUS, "")]).host

    with pytest.raises(StepRunning) as caught:
        locking.acquire(host, locking.acquire_step(APP, LOCK, lease_seconds=90), environment="production")

    assert not locking.is_held_by_other(caught.value)


def test_acquire_with_a_failed_script_raises_step_failed() -> None:
    """On a full disk, or without setup, the script fails before it writes the lock."""
    scene = Scene()
    host = scene.host_run("web1", lock=[Answer(1, "", "sh: cannot create held.new: No space left on device")]).host

    with pytest.raises(StepFailed, match="the lock could not be acquired"):
        locking.acquire(host, locking.acquire_step(APP, LOCK, lease_seconds=90), environment="production")


class Refusing:
    """A host that answers every script with one exit status."""

    name = "web1"

    def __init__(self, status: int) -> None:
        self.status = status

    def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
        return Answer(self.status, "", "")

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(("status", "error"), [(lock_file.HELD_STATUS, LockHeld), (lock_file.BUSY_STATUS, StepRunning)])
def test_run_under_lock_that_was_not_acquired_raises(status: int, error: type[RollingError]) -> None:
    with pytest.raises(error, match="web1: "):
        locking.run_under_lock(Refusing(status), APP, LOCK, Script("true"), environment="lab", seconds=5)


def test_run_under_lock_returns_the_answer_of_the_script() -> None:
    answer = locking.run_under_lock(Refusing(3), APP, LOCK, Script("exit 3"), environment="lab", seconds=5)

    assert (answer.status, answer.ok) == (3, False)


SHOP = application()
SEEN = as_wanted(SHOP)
OURS = Lock("r2", "ann", "laptop", 41, "deploy v2", 0, 0)


@pytest.mark.parametrize(
    "changed",
    [
        {"now": 99},
        {"lock": OURS},
        {"probes": (ProbeResult("backend", "u", False, "HTTP 502"),)},
        {"facts": (("free_kib", "1"),)},
        {"listening": (1, 2)},
        {"containers": tuple(reversed(SEEN.containers))},
        {"containers": tuple(replace(one, restarts=3, started_at="later") for one in SEEN.containers)},
    ],
)
def test_basis_ignores_irrelevant_changes(changed: dict[str, object]) -> None:
    assert locking.basis(SEEN) == locking.basis(replace(SEEN, **changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed",
    [
        {"active": (("backend", Color.GREEN),)},
        {"containers": ()},
        {"containers": tuple(replace(one, running=False) for one in SEEN.containers)},
        {"containers": tuple(replace(one, spec="another") for one in SEEN.containers)},
        {"containers": (*SEEN.containers, container(backend(), Color.GREEN))},
        {"live_site_hash": "another"},
        {"releases": (*SEEN.releases, replace(recorded(SHOP), id="r9"))},
    ],
)
def test_basis_differs_after_a_relevant_change(changed: dict[str, object]) -> None:
    assert locking.basis(SEEN) != locking.basis(replace(SEEN, **changed))  # type: ignore[arg-type]


def test_basis_ignores_the_order_of_flags() -> None:
    one, two = ("backend", Color.GREEN), ("frontend", Color.GREEN)

    assert locking.basis(replace(SEEN, active=(one, two))) == locking.basis(replace(SEEN, active=(two, one)))


def test_acquire_step_takes_the_lock_then_waits_for_a_step_then_observes() -> None:
    text = locking.acquire_step(SHOP, OURS, lease_seconds=60).script.text

    assert text.index("lock/guard") < text.index("lock/stage") < text.index("@@facts")


def test_acquire_step_has_time_to_wait_for_the_step_of_a_dead_run() -> None:
    assert locking.acquire_step(SHOP, OURS, lease_seconds=60).timeout_seconds > 120


def test_basis_of_a_bare_host_exists() -> None:
    assert locking.basis(HostState("web1")) == locking.basis(HostState("web1", now=5))
