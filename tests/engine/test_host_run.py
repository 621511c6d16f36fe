"""A run on its host, with real steps: the lock, the barrier, the undo, and the end of a killed run."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine import host_run, lock_file, observation
from rolling_upgrade.engine.host_run import RunDocument, RunEnd
from rolling_upgrade.engine.journal import CANCEL, END, GO, PREPARE, RELEASE, Journal, Words
from rolling_upgrade.engine.model import Event, HostResult, Outcome, Phase, Release
from rolling_upgrade.engine.plan import Plan, Step, record_failure, record_success
from rolling_upgrade.engine.shell import direct, script
from rolling_upgrade.errors import LockHeld, LockLost
from tests.engine.test_observation import EMPTY
from tests.support.sample import LOCK, application

APP = application()
OWN = replace(LOCK, token="r2")


def plan(home: Path, **scripts: str) -> Plan:
    """Return a plan of the steps a and b; each step and each undo writes its name to the file `done`."""
    record = Release("r2", "2026-11-23T00:00:00+00:00", "deploy", Outcome.GOOD, ())

    def write(name: str) -> str:
        return f"{scripts.get(name, ':')}\necho {name} >> {home}/done"

    # The observation of a bare host, without the tools of a real one.
    lock = f"{lock_file.acquire(str(home), OWN, lease_seconds=60)}\ncat <<'END'\n{EMPTY}END"
    return Plan(
        host="web1",
        action="deploy",
        run_id="r2",
        acquire=(Step("lock", "acquire the lock and observe again", direct(lock), 10),),
        prepare=(Step("backup", "back up", script(write("backup")), 10),),
        steps=tuple(
            Step(name, f"do {name}", script(write(name)), 10, script(write(f"undo-{name}")), f"take {name} back")
            for name in "ab"
        ),
        finalize=(record_success(str(home), record),),
        abort=(record_failure(str(home), record),),
        home=str(home),
        environment="production",
        record=record,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("lock", "journal/r2", "config"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def document(made: Plan, basis: str = "", lease_seconds: float = 60) -> RunDocument:
    return RunDocument(made, basis, APP.name, lease_seconds)


def execute(
    found: RunDocument, *words: str, on_event: Callable[[Event], None] = lambda _: None
) -> tuple[RunEnd, list[str]]:
    """Execute the run; return its end and what its steps wrote."""
    home = Path(found.plan.home)
    journal = Journal(home, "r2")
    journal.begin()
    end = host_run.execute(found, journal, Words(*words), on_event)
    journal.release()
    done = home / "done"
    return end, done.read_text().split() if done.exists() else []


def execute_cancelled_at(made: Plan, step: str, phase: Phase, *words: str) -> RunEnd:
    """Execute the plan, and cancel it when an event arrives."""
    received, journal = Words(*words), Journal(Path(made.home), "r2")
    journal.begin()

    def cancel(event: Event) -> None:
        if (event.step, event.phase) == (step, phase):
            received.add(CANCEL)

    return host_run.execute(document(made), journal, received, cancel)


def held(home: Path) -> bool:
    return (home / "lock" / "held").exists()


def outcome(home: Path) -> str:
    """Return the outcome in the newest line of the history."""
    return str(json.loads((home / "releases.jsonl").read_text().splitlines()[-1])["outcome"])


def test_execute_good_run_is_recorded_and_unlocked(home: Path) -> None:
    end, done = execute(document(plan(home)), PREPARE, GO)

    assert (end.result, end.error, done) == (HostResult.UPGRADED, "", ["backup", "a", "b"])
    assert (held(home), outcome(home)) == (False, "good")
    messages = Journal(home, "r2").messages()
    assert [message["state"] for message in messages if "state" in message] == ["locked", "prepared"]
    assert END in messages[-1]


def test_execute_failed_step_is_undone_and_recorded(home: Path) -> None:
    end, done = execute(document(plan(home, b="exit 3")), PREPARE, GO)

    assert (end.result, end.error) == (HostResult.UNDONE, "StepFailed")
    assert done == ["backup", "a", "undo-b", "undo-a"]
    assert (held(home), outcome(home)) == (False, "undone")


def test_execute_of_a_locked_host_touches_nothing(home: Path) -> None:
    (home / "lock" / "held").write_text("token=other\nowner=bob\nexpires_at=9999999999\n")

    end, done = execute(document(plan(home)), PREPARE, GO)

    assert (end.result, done) == (HostResult.NOT_STARTED, [])
    assert isinstance(end.raised, LockHeld)
    assert "bob" in (home / "lock" / "held").read_text()


def test_execute_of_a_changed_host_returns_the_observation_and_unlocks(home: Path) -> None:
    end, done = execute(document(plan(home), basis="another"), PREPARE, GO)

    assert (end.result, done, held(home)) == (HostResult.NOT_STARTED, [], False)
    assert observation.parse(APP.name, "web1", end.observation).host == "web1"


def test_execute_of_a_host_that_another_run_changed_after_a_takeover_is_not_planned_again(home: Path) -> None:
    """The executor is stopped between its lock and the comparison; another run completes meanwhile."""
    made = plan(home)
    [lock] = made.acquire
    takeover = replace(lock, script=script(lock.script, f"rm {home}/lock/held"))

    end, done = execute(document(replace(made, acquire=(takeover,)), basis="another"), PREPARE, GO)

    assert (end.observation, done) == ("", [])
    assert isinstance(end.raised, LockLost)


def test_execute_cancelled_at_the_barrier_unlocks(home: Path) -> None:
    end = execute_cancelled_at(plan(home), "backup", Phase.DONE, PREPARE)

    assert (end.result, end.error, held(home)) == (HostResult.NOT_STARTED, "", False)
    assert (home / "done").read_text() == "backup\n"


def test_execute_cancelled_while_it_waits_for_an_earlier_step_unlocks(home: Path) -> None:
    made = plan(home)
    [lock] = made.acquire
    waiting = replace(lock, script=direct(lock.script, f"touch {home}/now; sleep 60"))
    words, journal = Words(PREPARE, GO), Journal(home, "r2")
    journal.begin()

    def cancel() -> None:
        wait_for_file(home / "now")
        words.add(CANCEL)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(cancel)
        end = host_run.execute(document(replace(made, acquire=(waiting,))), journal, words)

    assert (end.result, end.error, held(home)) == (HostResult.NOT_STARTED, "", False)
    assert not (home / "done").exists()


def test_execute_cancelled_before_the_preparation_does_not_begin_it(home: Path) -> None:
    end = execute_cancelled_at(plan(home), "lock", Phase.DONE, PREPARE, GO)

    assert (end.result, end.error, held(home)) == (HostResult.NOT_STARTED, "", False)
    assert not (home / "releases.jsonl").exists()


def test_execute_cancelled_during_the_preparation_is_not_recorded_as_a_failure(home: Path) -> None:
    end = execute_cancelled_at(plan(home, backup="sleep 60"), "backup", Phase.STARTED, PREPARE, GO)

    assert (end.result, end.error, held(home)) == (HostResult.NOT_STARTED, "", False)
    assert not (home / "releases.jsonl").exists()


@pytest.mark.parametrize("words", [(), (PREPARE,)])
def test_execute_without_a_word_ends_within_the_lease(words: tuple[str, ...], home: Path) -> None:
    end, done = execute(document(plan(home), lease_seconds=0.2), *words)

    assert (end.result, held(home), "a" in done) == (HostResult.NOT_STARTED, False, False)
    assert "no word from the workstation" in end.message


def test_execute_after_a_takeover_stops_without_undo(home: Path) -> None:
    def take_over(event: Event) -> None:
        if (event.step, event.phase) == ("a", Phase.DONE):
            (home / "lock" / "held").write_text("token=other\nowner=bob\n")

    end, done = execute(document(plan(home)), PREPARE, GO, on_event=take_over)

    assert (end.result, done) == (HostResult.UNKNOWN, ["backup", "a"])
    assert isinstance(end.raised, LockLost)
    assert "bob" in (home / "lock" / "held").read_text()


def wait_for_file(path: Path) -> None:
    pause = threading.Event()
    for _ in range(500):
        if path.exists():
            return
        pause.wait(0.01)
    raise AssertionError(f"{path} did not appear")


def killed_at(home: Path, made: Plan, *words: str) -> None:
    """Execute the plan in a process, and kill it when a step writes the file `now`."""
    child = os.fork()
    if child == 0:
        execute(document(made), *(words or (PREPARE, GO)))
        os._exit(0)
    wait_for_file(home / "now")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_execute_again_after_a_kill_undoes_the_started_steps(home: Path) -> None:
    made = plan(home, b=f"touch {home}/now; sleep 60")
    killed_at(home, made)

    end, done = execute(document(made))

    assert (end.result, "killed on the host" in end.message) == (HostResult.UNDONE, True)
    assert done == ["backup", "a", "undo-b", "undo-a"]
    assert (held(home), outcome(home)) == (False, "undone")


def test_execute_again_after_a_kill_before_go_unlocks(home: Path) -> None:
    made = plan(home, backup=f"touch {home}/now; sleep 60")
    killed_at(home, made)

    end, done = execute(document(made))

    assert (end.result, done, held(home)) == (HostResult.UNDONE, [], False)


def test_execute_again_after_all_steps_records_the_release(home: Path) -> None:
    journal = Journal(home, "r2")
    assert (home / "lock").is_dir()
    (home / "lock" / "held").write_text("token=r2\nowner=ann\nexpires_at=9999999999\n")
    journal.events.write_text(
        "\n".join(
            json.dumps(message)
            for message in (
                {"state": "locked"},
                *({"event": {"step": step, "phase": phase}} for step in "ab" for phase in ("started", "done")),
            )
        )
        + "\n"
    )

    end, done = execute(document(plan(home)))

    assert (end.result, done) == (HostResult.UPGRADED, [])
    assert (held(home), outcome(home)) == (False, "good")


def test_execute_again_after_a_kill_while_the_recorded_run_cleaned_up_is_good(home: Path) -> None:
    made = plan(home)
    assert made.record is not None
    record = record_success(str(home), made.record, cleanup=script(f"touch {home}/now; sleep 60"))
    made = replace(made, finalize=(record,))
    killed_at(home, made)
    assert not held(home)

    end, done = execute(document(made))

    assert (end.result, end.error, done) == (HostResult.UPGRADED, "", ["backup", "a", "b"])
    assert (held(home), outcome(home)) == (False, "good")


def preparation(home: Path, **scripts: str) -> Plan:
    """Return a plan of setup: the same steps without a lock, an undo and a record."""
    made = plan(home, **scripts)
    steps = tuple(Step(step.id, step.title, step.script, step.timeout_seconds) for step in made.steps)
    return Plan("web1", "setup", "r2", steps=steps, home=str(home), result=HostResult.PREPARED)


def test_execute_without_a_lock_runs_the_steps(home: Path) -> None:
    end, done = execute(document(preparation(home)), PREPARE, GO)

    assert (end.result, end.error, done) == (HostResult.PREPARED, "", ["a", "b"])
    assert not (home / "releases.jsonl").exists()


def test_execute_without_a_lock_failed_step_leaves_the_host_to_the_next_run(home: Path) -> None:
    events: list[Event] = []
    end, done = execute(document(preparation(home, b="exit 3")), PREPARE, GO, on_event=events.append)

    assert (end.result, end.error, done) == (HostResult.UNKNOWN, "StepFailed", ["a"])
    assert Phase.UNDOING not in {event.phase for event in events}


def test_execute_without_a_lock_cancel_takes_effect_after_the_running_step(home: Path) -> None:
    end = execute_cancelled_at(preparation(home), "a", Phase.STARTED, PREPARE, GO)

    assert (end.result, end.error) == (HostResult.UNKNOWN, "Interrupted")
    assert (home / "done").read_text() == "a\n"


def test_execute_without_a_lock_beside_another_one_touches_nothing(home: Path) -> None:
    with (home / "lock" / "run").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        end, done = execute(document(preparation(home)), PREPARE, GO)

    assert (end.result, done) == (HostResult.NOT_STARTED, [])
    assert isinstance(end.raised, LockHeld)


def test_execute_without_a_lock_again_after_a_kill_continues(home: Path) -> None:
    made = preparation(home, b=f"if [ ! -e {home}/now ]; then touch {home}/now; sleep 60; fi")
    killed_at(home, made)

    end, done = execute(document(made), PREPARE, GO)

    assert (end.result, done) == (HostResult.PREPARED, ["a", "b"])


def releasing(home: Path, text: str = ":", **scripts: str) -> Plan:
    """Return a plan with a release command."""
    made = plan(home, **scripts)
    body, undo = (script(f"{part}\necho {name} >> {home}/done") for part, name in ((text, "release"), (":", "removed")))
    return replace(made, release=(Step("release", "migrate", body, 10, undo, "remove the container"),))


def test_execute_release_command_runs_before_the_steps(home: Path) -> None:
    end, done = execute(document(releasing(home)), PREPARE, RELEASE, GO)

    assert (end.result, done) == (HostResult.UPGRADED, ["backup", "release", "a", "b"])
    states = [message["state"] for message in Journal(home, "r2").messages() if "state" in message]
    assert states == ["locked", "prepared", "releasing", "released"]


def test_execute_release_command_of_another_host_is_left_out(home: Path) -> None:
    end, done = execute(document(releasing(home)), PREPARE, GO)

    assert (end.result, done) == (HostResult.UPGRADED, ["backup", "a", "b"])


def test_execute_failed_release_command_ends_the_run_before_its_steps(home: Path) -> None:
    end, done = execute(document(releasing(home, "exit 3")), PREPARE, RELEASE, GO)

    assert (end.result, end.error, done) == (HostResult.UNDONE, "StepFailed", ["backup", "removed"])
    assert (held(home), outcome(home)) == (False, "undone")


def test_execute_cancelled_release_command_is_removed(home: Path) -> None:
    end = execute_cancelled_at(releasing(home, "sleep 60"), "release", Phase.STARTED, PREPARE, RELEASE, GO)

    assert (end.result, end.error, held(home)) == (HostResult.UNDONE, "Interrupted", False)
    assert (home / "done").read_text().split() == ["backup", "removed"]


def test_execute_cancelled_at_its_release_command_does_not_start_it(home: Path) -> None:
    end = execute_cancelled_at(releasing(home), "backup", Phase.DONE, PREPARE, RELEASE, GO)

    assert (end.result, held(home)) == (HostResult.NOT_STARTED, False)
    assert (home / "done").read_text().split() == ["backup"]


def test_execute_released_host_without_a_word_says_what_has_run(home: Path) -> None:
    end, done = execute(document(releasing(home), lease_seconds=0.2), PREPARE, RELEASE)

    assert (end.result, done, held(home)) == (HostResult.NOT_STARTED, ["backup", "release"], False)
    assert "only its release command has run" in end.message


def test_execute_again_after_a_kill_removes_the_container_of_the_release_command(home: Path) -> None:
    made = releasing(home, f"touch {home}/now; sleep 60")
    killed_at(home, made, PREPARE, RELEASE, GO)

    end, done = execute(document(made))

    assert (end.result, done, held(home)) == (HostResult.UNDONE, ["backup", "removed"], False)
