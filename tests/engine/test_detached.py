"""Stages under a real `sh`: detached scripts, their logs and exit statuses, attaching and aborting."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from rolling_upgrade.engine import detached, lock_file
from rolling_upgrade.engine.host import Answer, LocalHost
from rolling_upgrade.engine.model import Lock
from rolling_upgrade.engine.prune_entry import Mode, prune_entry
from rolling_upgrade.engine.shell import Script, direct, script
from tests.support.shell import HOSTILE, Signal, sh

MINE = Lock("run", "ann", "laptop", 41, "deploy v2", 0, 0)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An application's directory, locked by this run; its name needs quoting."""
    directory = tmp_path / "an app's home"
    directory.mkdir()
    sh(script(lock_file.acquire(str(directory), MINE, lease_seconds=60)))
    return directory


def stage(home: Path, body: str | Script, step: str = "step", seconds: float = 20, run_id: str = MINE.token) -> Script:
    part = body if isinstance(body, Script) else Script(body)
    return detached.launch(str(home), run_id, step, part, seconds=seconds, lease_seconds=60)


def run(text: Script) -> Answer:
    return LocalHost().run(text, timeout_seconds=30)


def attach(home: Path, step: str = "step", seconds: float = 20) -> Answer:
    return run(detached.attach(str(home), "run", step, seconds=seconds))


def test_stage_returns_the_log_and_status_of_its_body(home: Path) -> None:
    assert run(stage(home, "echo out; echo err >&2")) == Answer(0, "out\nerr\n", "")


@pytest.mark.parametrize("status", [1, 3, 40, 255])
def test_stage_failing_body_gives_its_status(status: int, home: Path) -> None:
    answer = run(stage(home, f"echo said; exit {status}"))

    assert (answer.status, answer.output) == (status, "said\n")


def test_stage_failing_command_in_the_body_stops_it(home: Path) -> None:
    answer = run(stage(home, script("echo one", "false", "echo two")))

    assert (answer.status, answer.output) == (1, "one\n")


@pytest.mark.parametrize("value", HOSTILE)
def test_stage_hostile_text_in_the_body_stays_text(value: str, home: Path, tmp_path: Path) -> None:
    from rolling_upgrade.engine.shell import quote

    answer = run(stage(home, f"printf %s {quote(value)}"))

    assert (answer.output, list(tmp_path.rglob("pwned"))) == (value, [])


def test_stage_body_has_empty_standard_input(home: Path) -> None:
    assert run(stage(home, "cat; echo end")).output == "end\n"


def test_stage_without_the_lock_is_refused_and_the_body_never_runs(home: Path, tmp_path: Path) -> None:
    answer = run(stage(home, f"touch {tmp_path}/ran", run_id="theirs"))

    assert answer.status == lock_file.LOST_STATUS
    assert "owner=ann" in answer.output
    assert not (tmp_path / "ran").exists()


def test_stage_extends_the_lease_by_its_deadline_and_lease_seconds(home: Path) -> None:
    run(stage(home, ":", seconds=500))

    found = lock_file.parse((home / "lock" / "held").read_text())
    assert found is not None
    assert found.expires_at - found.acquired_at >= 560


def test_stage_past_its_deadline_gives_the_status_of_timeout(home: Path) -> None:
    assert run(stage(home, "sleep 30", seconds=0.2)).status == detached.TIMED_OUT_STATUS


def test_stage_secrets_are_deleted_from_the_disk_at_its_end(home: Path) -> None:
    run(stage(home, Script("true hunter2", ("hunter2",))))

    left = {path.name for path in (home / "journal" / "run").iterdir()}
    assert left == {"step.log", "step.status", "step.session"}
    assert not any(b"hunter2" in path.read_bytes() for path in (home / "journal").rglob("step.*"))


def test_stage_failing_body_leaves_no_secrets_either(home: Path) -> None:
    run(stage(home, Script("true hunter2; exit 7", ("hunter2",))))

    assert not (home / "journal" / "run" / "step.body").exists()


def test_stage_files_are_readable_only_by_the_owner(home: Path, began: Signal, may_end: Signal) -> None:
    thread = threading.Thread(target=run, args=(stage(home, _waiting(began, may_end)),))
    thread.start()
    began.wait()

    modes = {stat.S_IMODE(path.stat().st_mode) for path in (home / "journal" / "run").iterdir()}

    may_end.give()
    thread.join(30)
    assert modes == {0o600}


def test_stage_script_with_secrets_is_masked_completely(home: Path) -> None:
    shown = stage(home, Script("true hunter2", ("hunter2",))).masked

    assert "hunter2" not in shown
    assert not re.search(r"[A-Za-z0-9+/]{60}", shown)


def test_stage_returns_the_end_of_a_long_log(home: Path) -> None:
    answer = run(stage(home, "head -c 300000 /dev/zero | tr '\\0' x; echo; echo the end"))

    assert answer.output.endswith("the end\n")
    assert len(answer.output) == 65536


def test_stage_half_a_megabyte_of_body_runs(home: Path) -> None:
    assert run(stage(home, ": " + "x" * 500_000 + "\necho end")).output == "end\n"


def test_stage_run_again_after_a_failure_gives_the_new_answer(home: Path) -> None:
    run(stage(home, "echo first; exit 3"))

    assert run(stage(home, "echo second")) == Answer(0, "second\n", "")


def test_stages_run_one_after_the_other(home: Path, began: Signal, may_end: Signal) -> None:
    log = home / "order"
    text = _waiting(began, may_end) + f"echo first >> {_quoted(log)}"
    first = threading.Thread(target=run, args=(stage(home, text),))
    first.start()
    began.wait()
    second = threading.Thread(target=run, args=(stage(home, f"echo second >> {_quoted(log)}", step="other"),))
    second.start()

    may_end.give()
    first.join(30)
    second.join(30)

    assert log.read_text() == "first\nsecond\n"


def test_attach_to_an_ended_stage_gives_its_log_and_status(home: Path) -> None:
    run(stage(home, "echo said; exit 7"))

    answer = attach(home)

    assert (answer.status, answer.output) == (7, "said\n")


def test_attach_after_the_launching_shell_was_killed_gives_the_status(
    home: Path, began: Signal, may_end: Signal
) -> None:
    body = _waiting(began, may_end) + "echo survived; exit 9"
    with subprocess.Popen(["sh", "-c", stage(home, body).text], stdout=subprocess.DEVNULL) as launcher:
        began.wait()
        launcher.kill()
    may_end.give()

    answer = attach(home)

    assert (answer.status, answer.output) == (9, "survived\n")


def test_attach_to_a_stage_that_never_started_returns_never_began(home: Path) -> None:
    assert attach(home).status == detached.NEVER_BEGAN_STATUS


def test_attach_to_a_killed_stage_says_that_it_died(home: Path, began: Signal, may_end: Signal) -> None:
    launcher = _launched(stage(home, "echo half-way\n" + _waiting(began, may_end)))
    began.wait()
    launcher.kill()
    launcher.wait()
    session = (home / "journal" / "run" / "step.session").read_text().strip()
    subprocess.run(["pkill", "-KILL", "-s", session], check=True)

    answer = attach(home)

    assert (answer.status, answer.output) == (detached.DIED_STATUS, "half-way\n")


def test_attach_past_its_deadline_returns_timed_out(home: Path, began: Signal, may_end: Signal) -> None:
    launcher = _launched(stage(home, _waiting(began, may_end)))
    began.wait()

    answer = attach(home, seconds=0)

    may_end.give()
    assert (answer.status, launcher.wait(30)) == (detached.TIMED_OUT_STATUS, 0)


def test_abort_running_stage_ends_it_with_its_children(home: Path, began: Signal, may_end: Signal) -> None:
    body = f"sleep 300 & echo $! > {began.path}\nwait"
    launcher = _launched(stage(home, body))
    child = int(began.wait())

    answer = run(direct(detached.abort(str(home), "run")))

    assert (answer.status, _alive(child), launcher.wait(30)) == (0, False, 143)


def test_abort_kills_a_child_that_ignores_sigterm(home: Path, began: Signal) -> None:
    launcher = _launched(stage(home, f"trap '' TERM\necho $$ > {began.path}\nwhile :; do sleep 0.2; done"))
    child = int(began.wait())

    run(direct(detached.abort(str(home), "run")))

    launcher.wait(30)
    assert not _alive(child)


def test_abort_without_a_running_stage_is_no_error(home: Path) -> None:
    run(stage(home, ":"))

    assert run(direct(detached.abort(str(home), "run"))).status == 0


def test_abort_leaves_stages_of_other_runs_running(home: Path, began: Signal, may_end: Signal) -> None:
    launcher = _launched(stage(home, _waiting(began, may_end)))
    began.wait()

    run(direct(detached.abort(str(home), "another run")))

    may_end.give()
    assert launcher.wait(30) == 0


def test_undo_all_runs_every_part_and_fails_if_one_fails() -> None:
    parts = [Script("echo one"), Script("echo two; false; echo never"), Script("exit 3"), Script("echo four")]

    done = sh(detached.undo_all(parts))

    assert (done.returncode, done.stdout) == (1, "one\ntwo\nfour\n")


def test_undo_all_good_parts_succeed() -> None:
    assert sh(detached.undo_all([Script("echo one"), Script("cd /; x=1")])).returncode == 0


def test_undo_all_secrets_of_every_part_are_masked() -> None:
    assert detached.undo_all([Script("a", ("a",)), Script("b", ("b",))]).secrets == ("a", "b")


def test_direct_runs_in_the_login_directory_with_a_known_path() -> None:
    answer = run(direct('pwd; echo "$PATH"; umask'))

    assert answer.output.splitlines() == [
        os.path.realpath(os.environ["HOME"]),
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "0077",
    ]


def test_prune_deletes_all_but_the_newest_journals(home: Path) -> None:
    for day in range(1, 6):
        (home / "journal" / f"2026110{day}T000000Z-aa").mkdir(parents=True)
        (home / "journal" / f"2026110{day}T000000Z-aa" / "step.log").touch()

    sh(script(prune_entry(Mode.QUIET), detached.prune_journals(str(home), keep=2)))

    assert sorted(path.name[:8] for path in (home / "journal").iterdir()) == ["20261104", "20261105"]


def _waiting(began: Signal, may_end: Signal) -> str:
    return f"echo began > {_quoted(began.path)}\nread -r _ < {_quoted(may_end.path)}\n"


def _quoted(path: Path) -> str:
    from rolling_upgrade.engine.shell import quote

    return quote(str(path))


def _launched(text: Script) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sh", "-c", text.text], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _alive(pid: int) -> bool:
    """Return whether the process runs; a zombie does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
