"""A command of this workstation: heard while it runs, ended whole when its time is up or it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fabfile.config import at_rest
from fabfile.remote import local_command

_OWN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from fabfile.remote import local_command
local_command.run(["sh", "-c", "echo $$; sleep 60"], lambda line: print(line, flush=True), timeout_seconds=60)
"""


def test_lines_of_both_outputs_are_heard_in_order_and_the_last_are_kept() -> None:
    heard: list[str] = []

    ended = local_command.run(
        ["sh", "-c", "echo one; echo $TWO >&2; pwd; cat; exit 3"],
        heard.append,
        folder="/usr",
        env={"TWO": "two"},
        stdin="said\n",
        timeout_seconds=30,
    )

    assert heard == ["one", "two", "/usr", "said"]
    assert (ended.status, ended.ok, ended.last_words) == (3, False, "one\ntwo\n/usr\nsaid")


def test_time_is_up_and_what_it_began_ends_too(tmp_path: Path) -> None:
    kept = tmp_path / "pid"

    ended = local_command.run(["sh", "-c", f"sleep 60 & echo $! >{kept}; wait"], lambda _: None, timeout_seconds=0.5)

    assert (ended.timed_out, ended.ok) == (True, False)
    assert is_gone(int(kept.read_text()))


def test_time_is_up_and_what_left_for_a_session_of_its_own_ends_too(tmp_path: Path) -> None:
    kept = tmp_path / "pid"
    text = f"setsid sh -c 'echo $$ >{kept}; sleep 60 & wait' & wait"

    assert local_command.run(["sh", "-c", text], lambda _: None, timeout_seconds=0.7).timed_out
    assert is_gone(int(kept.read_text()))


def test_what_a_command_left_running_ends_with_it(tmp_path: Path) -> None:
    kept = tmp_path / "pid"
    began = time.monotonic()

    ended = local_command.run(["sh", "-c", f"sleep 60 & echo $! >{kept}"], lambda _: None, timeout_seconds=30)

    assert ended.ok
    assert time.monotonic() - began < 10
    assert is_gone(int(kept.read_text()))


def test_interrupt_ends_the_command() -> None:
    with subprocess.Popen([sys.executable, "-c", _OWN], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        inner = int(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        process.wait(30)

    assert is_gone(inner)


def test_command_has_this_environment_without_the_keys_of_the_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {at_rest.KEY_TEXT, at_rest.KEY_FILE} <= local_command.KEYS
    for name in (*local_command.KEYS, "OTHER"):
        monkeypatch.setenv(name, f"value of {name}")

    said = local_command.answer(["env"], timeout_seconds=10, env={"MORE": "1"}).last_words.splitlines()

    assert {"OTHER=value of OTHER", "MORE=1"} <= set(said)
    assert [line for line in said if line.partition("=")[0] in local_command.KEYS] == []


def test_answer_of_a_program_that_is_missing_is_a_status() -> None:
    assert local_command.answer(["/nowhere/at-all"], timeout_seconds=5).status == 127
    with pytest.raises(OSError, match="at-all"):
        local_command.run(["/nowhere/at-all"], lambda _: None, timeout_seconds=5)


def is_gone(pid: int) -> bool:
    for _ in range(200):
        try:
            os.kill(pid, 0)
            if f"{pid} (" in (state := Path(f"/proc/{pid}/stat").read_text()) and ") Z" in state:
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False
