"""Steps as real processes on this machine: status, output, limits, their lock, and their end."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine import lock_file, step_process
from rolling_upgrade.engine.executor import TIMED_OUT_STATUS
from rolling_upgrade.engine.host import Answer, Cancelled
from rolling_upgrade.engine.model import Lock
from rolling_upgrade.engine.plan import Step
from rolling_upgrade.engine.progress import Progress
from rolling_upgrade.engine.shell import Script, quote, script
from rolling_upgrade.engine.step_process import StepProcess
from tests.hostile.hosts import wait_until
from tests.support.shell import sh

MINE = Lock("run", "ann", "laptop", 41, "deploy v2", 0, 0)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An application's directory, locked by this run; its name needs quoting."""
    directory = tmp_path / "an app's home"
    (directory / "journal" / "run").mkdir(parents=True)
    sh(script(lock_file.acquire(str(directory), MINE, lease_seconds=60)))
    return directory


def step(text: str, seconds: float = 20, name: str = "step") -> Step:
    return Step(name, name, Script(text), seconds)


def run(
    home: Path,
    text: str,
    seconds: float = 20,
    *,
    run_id: str = "run",
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Answer:
    return StepProcess(home, run_id, 60).run(step(text, seconds), stop=stop, on_progress=on_progress)


def journal(home: Path, name: str) -> str:
    return (home / "journal" / "run" / name).read_text()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("status", [0, 1, 3, 40, 255])
def test_run_returns_the_status_and_the_output(status: int, home: Path) -> None:
    assert run(home, f"echo said; exit {status}") == Answer(status, "said\n")


def test_run_steps_of_a_group_at_the_same_time(home: Path) -> None:
    def meet(mine: str, other: str) -> Step:
        text = f"cd {quote(str(home))}; touch {mine}; until [ -e {other} ]; do sleep 0.01; done"
        return replace(step(text, 10, mine), group="start")

    with ThreadPoolExecutor(2) as pool:
        process = StepProcess(home, "run", 60)
        steps = [meet("a", "b"), meet("b", "a")]
        answers = list(pool.map(lambda each: process.run(each, stop=lambda: False, on_progress=print), steps))

    assert [answer.status for answer in answers] == [0, 0]


def test_run_steps_of_a_group_wait_for_another_step(home: Path) -> None:
    with (home / "lock" / "stage").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        ended = threading.Event()
        grouped = replace(step("echo ran", 10), group="start")
        process = StepProcess(home, "run", 60)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(process.run, grouped, stop=ended.is_set, on_progress=print)
            assert not wait([answer], timeout=0.5).done
            fcntl.flock(other, fcntl.LOCK_UN)
            assert answer.result(10).output == "ran\n"


def test_run_keeps_output_and_errors_in_order_in_the_journal(home: Path) -> None:
    run(home, "echo one; echo two >&2; echo three; exit 7")

    assert journal(home, "step.log") == "one\ntwo\nthree\n"
    assert journal(home, "step.status") == "7\n"
    assert int(journal(home, "step.session")) > 0


def test_run_failing_command_stops_the_step(home: Path) -> None:
    assert run(home, "echo one\nfalse\necho two") == Answer(1, "one\n")


def test_run_long_output_answers_its_end(home: Path) -> None:
    answer = run(home, "seq 100000; echo end")

    assert len(answer.output) == step_process.OUTPUT_BYTES
    assert answer.output.endswith("100000\nend\n")


def test_run_has_the_environment_of_every_script(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/hostile")

    lines = run(home, 'umask; pwd -P; echo "$PATH $LC_ALL"').output.splitlines()

    assert lines[0] in {"077", "0077"}
    assert lines[1] == str(Path.home().resolve())
    assert lines[2] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin C"


def test_run_standard_input_is_empty(home: Path) -> None:
    assert run(home, "cat; readlink /proc/self/fd/0") == Answer(0, "/dev/null\n")


def test_run_script_is_on_no_command_line_and_in_no_file(home: Path) -> None:
    look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c '[h]unter2' || :"

    answer = run(home, f"SECRET=hunter2\n{look}")

    assert answer == Answer(0, "0\n")
    assert not [path for path in home.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]


def test_run_children_inherit_no_descriptor_of_the_executor(home: Path) -> None:
    os.mkfifo(home / "control")
    handles = [os.open(home / "control", os.O_RDWR), os.open(home / "alive", os.O_RDWR | os.O_CREAT)]
    try:
        answer = run(home, "ls -l /proc/self/fd")
    finally:
        for handle in handles:
            os.close(handle)

    assert answer.ok
    assert not [name for name in ("control", "alive", "lock/stage") if name in answer.output]


def test_run_over_its_time_limit_ends(home: Path) -> None:
    assert run(home, "sleep 60", 0.2).status == TIMED_OUT_STATUS


@pytest.mark.parametrize("trap", ["", "trap '' TERM\n"])
def test_run_stopped_ends_the_step_and_its_children(trap: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_process, "_COMPLETE_SECONDS", 0.3)
    monkeypatch.setattr(step_process, "_END_SECONDS", 0.3)
    child = home / "child"

    with pytest.raises(Cancelled):
        run(home, f'{trap}sleep 60 & echo $! > "{child}.new"; mv "{child}.new" "{child}"; wait', stop=child.exists)

    assert not is_running(int(child.read_text()))
    assert not is_running(int(journal(home, "step.session")))
    assert journal(home, "step.status") == "143\n"


def test_run_without_the_lock_runs_nothing(home: Path) -> None:
    answer = run(home, f'touch "{home}/ran"', run_id="theirs")

    assert answer.status == lock_file.LOST_STATUS
    assert "owner=ann" in answer.output
    assert not (home / "ran").exists()


def test_run_extends_the_lease_by_the_time_limit_and_the_lease(home: Path) -> None:
    before = int(time.time())

    run(home, ":", 500)

    found = lock_file.parse((home / "lock" / "held").read_text())
    assert found is not None
    assert before + 560 <= found.expires_at <= time.time() + 560


def test_run_beside_a_longer_step_of_its_group_keeps_the_lease_of_that_one(home: Path) -> None:
    process, expires = StepProcess(home, "run", 60), int(time.time()) + 560
    long = replace(
        step(f"cd {quote(str(home))}; touch runs; until [ -e ended ]; do sleep 0.01; done", 500, "a"), group="start"
    )
    short = replace(step(f"touch {quote(str(home / 'ended'))}", 10, "b"), group="start")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(process.run, long, stop=lambda: False, on_progress=print)
        wait_until((home / "runs").exists, "the long step")
        assert process.run(short, stop=lambda: False, on_progress=print).ok

        found = lock_file.parse((home / "lock" / "held").read_text())
        assert answer.result(10).ok
    assert found is not None
    assert found.expires_at >= expires


def test_run_while_another_step_runs_is_busy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setattr(lock_file, "WAIT_SECONDS", 0)
    with (home / "lock" / "stage").open("ab") as stage:
        fcntl.flock(stage, fcntl.LOCK_EX)
        answer = run(home, f'touch "{home}/ran"')

    assert answer.status == lock_file.BUSY_STATUS
    assert not (home / "ran").exists()


def test_run_reports_progress_while_the_step_runs(home: Path) -> None:
    seen: list[Progress] = []
    reported = threading.Event()

    def report(progress: Progress) -> None:
        seen.append(progress)
        (home / "go").touch()
        reported.set()

    text = f'echo "@@progress text half"; until [ -e "{home}/go" ]; do sleep 0.02; done; echo end'

    assert run(home, text, 5, on_progress=report) == Answer(0, "end\n")
    assert seen == [Progress("half")]


def test_run_without_a_writable_journal_keeps_the_log_in_memory(home: Path) -> None:
    (home / "journal" / "run").rmdir()

    assert run(home, "echo out; exit 3") == Answer(3, "out\n")


def test_run_whose_flock_is_killed_ends_all_its_processes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of the step ends with flock(1), so nothing of the step may run on."""
    monkeypatch.setattr(step_process, "_COMPLETE_SECONDS", 0.3)
    child = home / "child"

    def kill_flock() -> bool:
        if child.exists():
            os.kill(int(journal(home, "step.session")), signal.SIGKILL)
        return False

    answer = run(home, f'sleep 60 & echo $! > "{child}.new"; mv "{child}.new" "{child}"; wait', stop=kill_flock)

    assert answer.status == 128 + signal.SIGKILL
    assert not is_running(int(child.read_text()))


def test_run_with_endless_output_keeps_its_newest_part_and_its_progress(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Progress] = []
    sizes: list[int] = []
    log = home / "journal" / "run" / "step.log"

    def measure() -> bool:
        sizes.append(log.stat().st_size)
        return False

    def report(progress: Progress) -> None:
        seen.append(progress)
        (home / progress.text).touch()

    text = f"""\
seq 3000000; echo "@@progress text nearly"; until [ -e "{home}/nearly" ]; do sleep 0.02; done
seq 3000000; echo "@@progress text done"; echo end"""
    answer = run(home, text, stop=measure, on_progress=report)

    # 46 MB in total. Between two checks the log may exceed its limit.
    assert max(sizes) < 2 * step_process.LOG_BYTES
    assert log.stat().st_size < step_process.LOG_BYTES
    assert answer.output.endswith("2999999\n3000000\nend\n")
    assert len(answer.output) > step_process.OUTPUT_BYTES - 100
    assert [progress.text for progress in seen] == ["nearly", "done"]


def test_run_whose_log_an_operator_empties_goes_on(home: Path) -> None:
    seen: list[Progress] = []
    log = home / "journal" / "run" / "step.log"

    def report(progress: Progress) -> None:
        seen.append(progress)
        log.write_bytes(b"")
        (home / "go").touch()

    text = f'seq 1000; echo "@@progress text half"; until [ -e "{home}/go" ]; do sleep 0.02; done; echo end'

    assert run(home, text, on_progress=report) == Answer(0, "end\n")
    assert seen == [Progress("half")]


def test_run_reports_the_newest_progress_of_a_flood(home: Path) -> None:
    """Each report is an event on the disk and on the line to the workstation."""
    seen: list[Progress] = []

    run(home, 'for n in $(seq 20000); do echo "@@progress text $n"; done', on_progress=seen.append)

    assert seen[-1] == Progress("20000")
    assert len(seen) < 200


def test_run_log_in_memory_is_limited(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_process, "LOG_BYTES", 100_000)
    monkeypatch.setattr(step_process, "KEPT_BYTES", 50_000)
    (home / "journal" / "run").rmdir()

    answer = run(home, "seq 100000; sleep 0.3; readlink /proc/self/fd/2; stat -Lc %s /dev/stderr")

    *_, name, size = answer.output.splitlines()
    assert "memfd" in name
    assert int(size) < 100_000


def leave(home: Path, run_id: str) -> tuple[int, Path]:
    """Kill an executor in the middle of a step; return the step's session and the file with the id of its child."""
    child = home / f"child-{run_id}"
    executor = os.fork()
    if executor == 0:
        run(home, f'sleep 60 & echo $! > "{child}.new"; mv "{child}.new" "{child}"; wait', run_id=run_id)
        os._exit(0)
    session = home / "journal" / run_id / "step.session"
    wait_until(lambda: child.exists() and session.exists(), "the step")
    os.kill(executor, signal.SIGKILL)
    os.waitpid(executor, 0)
    return int(session.read_text()), child


@pytest.mark.parametrize("kill_the_leader", [False, True])
def test_end_leftovers_ends_a_step_of_a_killed_executor(
    kill_the_leader: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_process, "_COMPLETE_SECONDS", 0.3)
    monkeypatch.setattr(step_process, "_END_SECONDS", 0.3)
    session, child = leave(home, "run")
    if kill_the_leader:
        os.kill(session, signal.SIGKILL)

    StepProcess(home, "run", 60).end_leftovers()

    assert not is_running(int(child.read_text()))


def test_end_leftovers_ends_no_other_session(home: Path) -> None:
    """After a reboot, a session id may belong to another program, or to a step of another run."""
    environments: tuple[dict[str, str], ...] = (
        {},
        {step_process.STEP_VARIABLE: "other/other"},
        {step_process.STEP_VARIABLE: "run/done"},
    )
    processes = [
        subprocess.Popen(["sleep", "60"], start_new_session=True, env={**os.environ, **environment})
        for environment in environments
    ]
    try:
        for name, process in zip(("program", "other", "done"), processes, strict=True):
            (home / "journal" / "run" / f"{name}.session").write_text(f"{process.pid}\n")
        (home / "journal" / "run" / "done.status").write_text("0\n")

        StepProcess(home, "run", 60).end_leftovers()

        assert all(is_running(process.pid) for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_run_stopped_lets_the_running_program_complete(home: Path, tmp_path: Path) -> None:
    """Podman, killed while it replaces a container, leaves it half-removed."""
    program, began, complete, after = (tmp_path / name for name in ("podman", "began", "complete", "after"))
    program.write_text(
        "#!/usr/bin/python3\nimport os, pathlib, sys, time\n"
        "shell = os.getppid()\npathlib.Path(sys.argv[1]).touch()\n"
        "while os.getppid() == shell: time.sleep(0.02)\npathlib.Path(sys.argv[2]).touch()\n"
    )
    program.chmod(0o755)

    with pytest.raises(Cancelled):
        run(home, f"{program} {began} {complete}\ntouch {after}", stop=began.exists)

    assert (complete.exists(), after.exists()) == (True, False)


def shown(home: Path, text: str) -> tuple[Answer, list[Progress]]:
    """Run a step that shows its output; return its answer and what it showed."""
    reported: list[Progress] = []
    visible = replace(step(text), shows_output=True)
    answer = StepProcess(home, "run", 60).run(visible, stop=lambda: False, on_progress=reported.append)
    return answer, reported


def test_run_shows_the_output_of_a_step_while_it_runs(home: Path) -> None:
    seen = quote(str(home / "seen"))
    reported: list[str] = []

    def see(found: Progress) -> None:
        reported.append(found.lines)
        (home / "seen").touch()

    visible = replace(
        step(f"echo one; until [ -e {seen} ]; do sleep 0.01; done; echo two >&2; printf three"), shows_output=True
    )
    answer = StepProcess(home, "run", 60).run(visible, stop=lambda: False, on_progress=see)

    assert reported[0] == "one"
    assert "\n".join(reported).split() == ["one", "two", "three"]
    assert answer == Answer(0, "one\ntwo\nthree")


def test_run_shows_the_last_state_of_a_bar(home: Path) -> None:
    _, reported = shown(home, "printf '10%%\\r50%%\\r100%%\\n'; echo 'with\r'")

    assert "\n".join(found.lines for found in reported).split() == ["100%", "with"]


def test_run_bounds_the_output_that_it_shows_but_not_its_log(home: Path) -> None:
    _, reported = shown(home, f"yes | head -c {4 * step_process.SHOWN_BYTES}; printf '%3000s\\n' x")

    text = "\n".join(found.lines for found in reported)
    assert len(text) <= step_process.SHOWN_BYTES + step_process.OUTPUT_BYTES
    assert reported[-1].lines.endswith("The log on the host has the rest of the output.")
    assert len(journal(home, "step.log")) == 4 * step_process.SHOWN_BYTES + 3001


def test_run_cuts_a_long_line_that_it_shows(home: Path) -> None:
    _, reported = shown(home, "printf '%3000s\\n' x")

    assert [len(line) for found in reported for line in found.lines.split("\n")] == [1001]
