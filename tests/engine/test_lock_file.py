"""The lock of a host, run with a real `sh` in a temporary directory."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from rolling_upgrade.engine import lock_file
from rolling_upgrade.engine.model import Lock
from rolling_upgrade.engine.shell import script
from tests.support.shell import HOSTILE, sh

MINE = Lock("mine", "ann", "laptop", 41, "deploy v2", 0, 0)
THEIRS = Lock("theirs", "bob", "ci", 42, "deploy v1", 0, 0)
PIPES: Final[dict[str, Any]] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}


@pytest.fixture
def home(tmp_path: Path) -> str:
    """A directory whose name needs quotes."""
    directory = tmp_path / "it's a $(home)"
    directory.mkdir()
    return str(directory)


def take(home: str, holder: Lock = MINE, lease: float = 60, dead: str = "") -> subprocess.CompletedProcess[str]:
    return sh(script(lock_file.acquire(home, holder, lease_seconds=lease, replaceable_token=dead), "echo went on"))


def held(home: str) -> Lock | None:
    file = Path(home, "lock", "held")
    return lock_file.parse(file.read_text("utf-8")) if file.exists() else None


def test_acquire_free_host_takes_it_for_the_lease(home: str) -> None:
    done = take(home, lease=60)

    found = held(home)
    assert (done.returncode, done.stdout) == (0, "went on\n")
    assert found is not None
    assert replace(found, acquired_at=0, expires_at=0) == MINE
    assert found.expires_at - found.acquired_at == 60


def test_acquire_live_other_holder_is_refused_and_named(home: str) -> None:
    take(home, THEIRS)

    done = take(home)

    named = lock_file.parse(done.stdout)
    assert done.returncode == lock_file.HELD_STATUS
    assert (named and named.owner, held(home)) == ("bob", named)
    assert "went on" not in done.stdout


def test_acquire_writes_the_target_that_the_next_run_reads(home: str) -> None:
    take(home, replace(MINE, target="20261123T000000Z-abcdef"))

    found = held(home)
    assert found is not None
    assert found.target == "20261123T000000Z-abcdef"


def test_parse_lock_file_of_an_earlier_version_has_no_target() -> None:
    found = lock_file.parse("token=t\nowner=bob\nworkstation=ci\npid=7\nreason=rollback to A\nexpires_at=9\n")

    assert found is not None
    assert (found.owner, found.target, found.expires_at) == ("bob", "", 9)


def test_acquire_of_the_own_lock_reports_no_takeover(home: str) -> None:
    take(home)

    assert take(home).stdout == "went on\n"


def test_acquire_expired_lease_is_taken_over_and_reported(home: str) -> None:
    take(home, THEIRS, lease=-5)

    done = take(home)

    former = lock_file.parse(done.stdout)
    assert done.stdout.startswith("takeover\n")
    assert (former and former.token, held(home) and held(home).token) == ("theirs", "mine")  # type: ignore[union-attr]


def test_acquire_lease_of_a_run_known_to_be_dead_is_taken_over(home: str) -> None:
    take(home, THEIRS)

    done = take(home, dead="theirs")

    assert done.stdout.startswith("takeover\n")


def test_acquire_another_token_than_the_dead_one_is_refused(home: str) -> None:
    take(home, THEIRS)

    assert take(home, dead="somebody else").returncode == lock_file.HELD_STATUS


def test_acquire_takes_over_a_malformed_lock_file(home: str) -> None:
    Path(home, "lock").mkdir()
    Path(home, "lock", "held").write_text("half a li")

    assert take(home).returncode == 0


@pytest.mark.parametrize("value", HOSTILE)
def test_acquire_hostile_reason_stays_one_line_and_runs_nothing(value: str, home: str) -> None:
    take(home, replace(MINE, reason=value, owner=value))

    found = held(home)
    assert found is not None
    assert (found.token, found.pid) == ("mine", 41)
    assert not list(Path(home).rglob("pwned"))


def test_acquire_reason_with_percent_and_backslash_is_stored_unchanged(home: str) -> None:
    take(home, replace(MINE, reason="100 % \\n done"))

    found = held(home)
    assert found is not None
    assert found.reason == "100 % \\n done"


def test_acquire_twenty_at_once_only_one_succeeds(home: str) -> None:
    texts = [script(lock_file.acquire(home, replace(MINE, token=f"run-{n}"), lease_seconds=60)).text for n in range(20)]
    running = [subprocess.Popen(["sh", "-c", text], stdout=subprocess.PIPE, text=True) for text in texts]

    outputs = [process.communicate(timeout=30)[0] for process in running]

    winners = [n for n, process in enumerate(running) if process.returncode == 0]
    losers = {process.returncode for process in running} - {0}
    assert (len(winners), losers) == (1, {lock_file.HELD_STATUS})
    assert {lock_file.parse(output).token for output in outputs if output} == {f"run-{winners[0]}"}  # type: ignore[union-attr]


def test_renew_changes_only_the_end_of_the_lease(home: str) -> None:
    take(home, lease=10)
    before = held(home)

    assert lock_file.renew(Path(home), "mine", 500) == ""

    after = held(home)
    assert before is not None
    assert after is not None
    assert after.expires_at - before.expires_at >= 489
    assert replace(after, expires_at=0) == replace(before, expires_at=0)


def test_renew_after_a_takeover_refuses_and_names_the_new_holder(home: str) -> None:
    take(home, lease=-5)
    take(home, THEIRS)

    assert "owner=bob" in lock_file.renew(Path(home), "mine", 60)


def test_renew_of_a_released_lock_is_refused(home: str) -> None:
    take(home)
    sh(script(lock_file.release(home, "mine")))

    assert "nobody holds it" in lock_file.renew(Path(home), "mine", 60)


@contextmanager
def guarded(home: str) -> Iterator[None]:
    """Hold the guard in another process, which does not release it."""
    with subprocess.Popen(["flock", f"{home}/lock/guard", "sh", "-c", "echo; read x"], **PIPES) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield


@pytest.mark.parametrize(("lease", "reason"), [(60, ""), (-5, "the lease is over; it could not be renewed")])
def test_renew_waits_for_the_guard_only_for_a_while(
    lease: float, reason: str, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run goes on until its lease ends: while a process holds the guard, no other run can take the lock over."""
    monkeypatch.setattr(lock_file, "GUARD_SECONDS", 0.2)
    take(home, lease=lease)
    before = held(home)

    with guarded(home):
        answer = lock_file.renew(Path(home), "mine", 500)

    assert answer.partition(",")[0] == reason
    assert held(home) == before


def test_release_own_lock_frees_the_host(home: str) -> None:
    take(home)

    done = sh(script(lock_file.release(home, "mine")))

    assert (done.returncode, held(home)) == (0, None)


def test_release_keeps_the_lock_of_another_run(home: str) -> None:
    take(home, THEIRS)

    done = sh(script(lock_file.release(home, "mine")))

    found = held(home)
    assert (done.returncode, found and found.token) == (0, "theirs")


def test_release_twice_succeeds(home: str) -> None:
    take(home)

    assert [sh(script(lock_file.release(home, "mine"))).returncode for _ in range(2)] == [0, 0]


def test_release_on_a_host_without_a_lock_directory_touches_nothing_else(home: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "held").write_text("token=mine\n")

    sh(lock_file.release(home, "mine"), cwd=elsewhere)

    assert (elsewhere / "held").exists()


@pytest.mark.parametrize("text", ["", "owner=bob\n", "no equals sign", "token=\n"])
def test_parse_without_a_token_is_no_lock(text: str) -> None:
    assert lock_file.parse(text) is None


def test_parse_malformed_numbers_are_zero() -> None:
    found = lock_file.parse("token=t\npid=x\nexpires_at=\nreason=a=b\n")

    assert found == Lock("t", "?", "?", 0, "a=b", 0, 0)


def test_show_free_host_has_no_holder_and_no_step(home: str) -> None:
    done = sh(script(lock_file.show(home)))

    assert (lock_file.parse(done.stdout), lock_file.is_step_running(done.stdout), done.returncode) == (None, False, 0)
    assert lock_file.host_time(done.stdout) > 0


def test_show_held_host_with_a_running_step_prints_both(home: str) -> None:
    take(home, THEIRS)

    looked = shlex.quote(lock_file.show(home))
    done = sh(f"flock {shlex.quote(home + '/lock/stage')} sh -c {looked}")

    found = lock_file.parse(done.stdout)
    assert (found and found.token, lock_file.is_step_running(done.stdout)) == ("theirs", True)


def test_force_release_releases_only_the_lock_of_that_holder(home: str) -> None:
    take(home, THEIRS)

    assert sh(script(lock_file.force_release(home, "mine"))).returncode == 0
    assert held(home) is not None
    assert sh(script(lock_file.force_release(home, "theirs"))).returncode == 0
    assert held(home) is None


def test_force_release_while_a_step_runs_is_refused(home: str) -> None:
    take(home, THEIRS)

    text = shlex.quote(script(lock_file.force_release(home, "theirs")).text)
    done = sh(f"flock {shlex.quote(home + '/lock/stage')} sh -c {text}")

    assert (done.returncode, held(home) is None) == (lock_file.BUSY_STATUS, False)
