"""The journal of a run: its executor, its events, its control words and its followers."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
from pathlib import Path

import pytest

from rolling_upgrade.engine import journal as journals
from rolling_upgrade.engine import lock_file
from rolling_upgrade.engine.journal import CANCEL, DIED_STATUS, END, FOLLOWING, GO, GONE_STATUS, Journal, Words
from rolling_upgrade.engine.prune_entry import Mode, prune_entry
from rolling_upgrade.engine.shell import script
from tests.support.shell import sh


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    found = Journal(tmp_path, "r1")
    found.path.mkdir(parents=True)
    return found


def executor(journal: Journal) -> int:
    """Start a process that executes the run until it is killed; return its id."""
    ready, said = os.pipe()
    child = os.fork()
    if child == 0:
        journal.begin()
        os.write(said, b"x")
        signal.pause()
    os.read(ready, 1)
    return child


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def followed(journal: Journal, position: int = 0) -> tuple[int, list[dict[str, object]]]:
    """Follow the run without words; return the status and the printed lines."""
    reader, writer = os.pipe()
    status = journals.follow(journal, position, None, writer)
    os.close(writer)
    with os.fdopen(reader) as lines:
        return status, [json.loads(line) for line in lines]


def test_begin_admits_one_executor_at_a_time(journal: Journal) -> None:
    child = executor(journal)
    try:
        assert (journal.begin(), journal.is_alive()) == (False, True)
    finally:
        kill(child)
    assert (journal.is_alive(), journal.begin()) == (False, True)


def test_begin_of_another_plan_waits_for_the_executor_of_the_earlier_one(journal: Journal) -> None:
    child = executor(journal)
    journal.events.unlink()
    threading.Timer(0.1, kill, (child,)).start()

    assert journal.begin()


def test_begin_of_an_ended_run_is_refused(journal: Journal) -> None:
    journal.begin()
    journal.append({END: {}})
    journal.release()

    assert (journal.begin(), journal.is_alive()) == (False, False)


def test_begin_removes_half_a_line(journal: Journal) -> None:
    journal.events.write_bytes(b'{"state": "locked"}\n{"event": {"ph')

    journal.begin()

    assert journal.messages() == [{"state": "locked"}, {}]


def test_messages_of_damaged_lines_are_left_out(journal: Journal) -> None:
    journal.events.write_bytes(b'{"state": "locked"}\nnonsense\n\xff\n{"state": "pre')

    assert journal.messages() == [{"state": "locked"}]


def test_follow_prints_from_a_position_until_the_end(journal: Journal) -> None:
    journal.append({"state": "locked"})
    position = journal.events.stat().st_size
    journal.append({"state": "prepared"})
    journal.append({END: {"result": "upgraded"}})

    assert followed(journal, position) == (0, [FOLLOWING, {"state": "prepared"}, {END: {"result": "upgraded"}}])


def test_follow_ends_when_the_executor_dies(journal: Journal) -> None:
    child = executor(journal)
    journal.append({"state": "locked"})
    threading.Timer(0.1, kill, (child,)).start()

    assert followed(journal) == (DIED_STATUS, [FOLLOWING, {}, {"state": "locked"}])


def test_follow_passes_words_to_the_executor_and_ends_when_the_workstation_is_gone(journal: Journal) -> None:
    journal.begin()
    words = Words()
    words.listen(journal.open_control())
    source, workstation = os.pipe()
    sink = os.open(os.devnull, os.O_WRONLY)
    os.write(workstation, b"prepare\ngo\n")
    os.close(workstation)

    assert journals.follow(journal, 0, source, sink) == GONE_STATUS
    assert words.wait_for(GO, 10)


def test_words_wait_ends_with_cancel() -> None:
    words = Words()
    threading.Timer(0.05, words.add, (CANCEL,)).start()

    assert (words.wait_for(GO, 10), words.cancelled.is_set()) == (False, True)


def test_words_wait_ends_without_any_word_for_the_lease() -> None:
    assert not Words().wait_for(GO, 0.1)


def test_words_wait_renews_the_lease_only_while_words_arrive() -> None:
    words, renewed = Words(), threading.Event()

    def renew() -> bool:
        renewed.set()
        words.add(GO)
        return True

    threading.Timer(0.02, words.add, ("wait",)).start()

    assert words.wait_for(GO, 5, renew)
    assert renewed.is_set()


def test_words_wait_ends_when_the_lock_is_lost() -> None:
    words = Words()
    threading.Timer(0.02, words.add, ("wait",)).start()

    assert not words.wait_for(GO, 5, lambda: False)


def test_prune_keeps_the_newest_journals_and_the_engines_that_they_use(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    for number, name in enumerate(("old", "new")):
        engine = tmp_path / "engine" / f"{name}.pyz"
        engine.write_text(name)
        os.utime(engine, (0, 0))
        run = tmp_path / "journal" / f"r{number}"
        run.mkdir(parents=True)
        (run / "engine.pyz").hardlink_to(engine)

    done = sh(script(prune_entry(Mode.REPORT), journals.prune(str(tmp_path), keep=1)))

    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "journal").iterdir()] == ["r1"]
    assert [path.name for path in (tmp_path / "engine").iterdir()] == ["new.pyz"]


@pytest.mark.parametrize("keep", ["prune", "tidy"])
def test_prune_and_tidy_keep_the_journal_of_a_running_run(keep: str, tmp_path: Path) -> None:
    """Its id is older than the others: refused runs have come since, or the clock of its workstation is behind."""
    (tmp_path / "engine").mkdir()
    for name in ("a-gone", "b-running", *(f"c{number}" for number in range(8))):
        (tmp_path / "journal" / name).mkdir(parents=True)
    (tmp_path / "journal" / "a-gone" / "alive").touch()
    running = Journal(tmp_path, "b-running")
    assert running.begin()
    prune = script(prune_entry(Mode.REPORT), journals.prune(str(tmp_path), keep=5))

    done = sh(prune if keep == "prune" else journals.tidy(str(tmp_path), "a-starts"))
    running.release()

    assert done.returncode == 0, done.stderr
    left = sorted(path.name for path in (tmp_path / "journal").iterdir())
    assert left == ["b-running", *(f"c{number}" for number in range(3 if keep == "prune" else 4, 8))]


def test_tidy_keeps_the_journal_of_the_run_that_starts(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    for name in ("a-starts", *(f"c{number}" for number in range(5))):
        (tmp_path / "journal" / name).mkdir(parents=True)

    assert sh(journals.tidy(str(tmp_path), "a-starts")).returncode == 0

    assert (tmp_path / "journal" / "a-starts").is_dir()


def test_question_for_an_executor_is_not_an_executor(tmp_path: Path) -> None:
    """Several hosts and workstations may ask at the same time, also while the run gets its new executor."""
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock" / "held").write_text("token=r\n")
    (tmp_path / "journal" / "r").mkdir(parents=True)
    killed, restarted = Journal(tmp_path, "r"), Journal(tmp_path, "r")
    assert killed.begin()
    killed.release()
    with (tmp_path / "journal" / "r" / "alive").open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)

        assert sh(lock_file.executing(str(tmp_path))).stdout == ""
        threading.Timer(0.05, fcntl.flock, (asking, fcntl.LOCK_UN)).start()
        assert restarted.begin()

    assert sh(lock_file.executing(str(tmp_path))).stdout == "yes\n"
    restarted.release()
