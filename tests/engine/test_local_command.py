"""Local commands: output is passed on while they run; a timeout or an interrupt ends all their processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rolling_upgrade.config import secrets_file
from rolling_upgrade.engine import local_command, untrusted

_OWN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from rolling_upgrade.engine import local_command
local_command.run(["sh", "-c", "echo $$; sleep 60"], lambda line: print(line, flush=True), timeout_seconds=60)
"""


def test_lines_of_both_streams_arrive_in_order() -> None:
    heard: list[str] = []

    ended = local_command.run(
        ["sh", "-c", "echo one; echo $TWO >&2; pwd; cat; exit 3"],
        heard.append,
        directory="/usr",
        env={"TWO": "two"},
        stdin="said\n",
        timeout_seconds=30,
    )

    assert heard == ["one", "two", "/usr", "said"]
    assert (ended.status, ended.ok, ended.output_tail) == (3, False, "one\ntwo\n/usr\nsaid")


def test_carriage_return_ends_a_line() -> None:
    heard: list[str] = []
    hostile = ["printf", "ok\\rreport: x\\r\\r\\nnext\\n\\nlast\\r"]

    local_command.run(hostile, lambda line: heard.append(f"unit | {line}"), timeout_seconds=30)

    assert heard == ["unit | ok", "unit | report: x", "unit | next", "unit | ", "unit | last"]


def test_capture_returns_only_standard_output() -> None:
    text = "i=0; while [ $i -lt 99 ]; do echo $i; i=$((i+1)); done; echo no >&2"

    ended = local_command.capture(["sh", "-c", text], timeout_seconds=30)

    assert ended.output.split("\n") == [str(number) for number in range(99)]
    assert ("no" in ended.output, "no" in ended.output_tail.split("\n")) == (False, True)


def test_capture_limits_endless_output() -> None:
    text = "yes | head -c 9000000"

    ended = local_command.capture(["sh", "-c", text], timeout_seconds=60)

    assert (ended.ok, len(ended.output) <= untrusted.ANSWER_BYTES) == (True, True)


def test_timeout_ends_child_processes(tmp_path: Path) -> None:
    kept = tmp_path / "pid"

    ended = local_command.run(["sh", "-c", f"sleep 60 & echo $! >{kept}; wait"], lambda _: None, timeout_seconds=0.5)

    assert (ended.timed_out, ended.ok) == (True, False)
    assert is_gone(int(kept.read_text()))


def test_timeout_ends_children_in_other_sessions(tmp_path: Path) -> None:
    kept = tmp_path / "pid"
    text = f"setsid sh -c 'echo $$ >{kept}; sleep 60 & wait' & wait"

    assert local_command.run(["sh", "-c", text], lambda _: None, timeout_seconds=0.7).timed_out
    assert is_gone(int(kept.read_text()))


def test_processes_left_by_a_command_end_with_it(tmp_path: Path) -> None:
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


def test_command_environment_contains_only_allowed_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {secrets_file.KEY_TEXT, secrets_file.KEY_FILE, "SSH_AUTH_SOCK"} <= local_command.SECRET_VARIABLES
    for name in (*local_command.SECRET_VARIABLES, "OTHER", "GITHUB_ENV", "https_proxy", "LC_TIME"):
        monkeypatch.setenv(name, f"value of {name}")
    said: list[str] = []

    local_command.run(["env"], said.append, timeout_seconds=10, env={"MORE": "1"})

    assert {"https_proxy=value of https_proxy", "LC_TIME=value of LC_TIME", "MORE=1"} <= set(said)
    assert {line.partition("=")[0] for line in said} <= {*local_command.application_environment(os.environ), "MORE"}
    assert [line for line in said if line.startswith(("OTHER", "GITHUB_ENV", *local_command.SECRET_VARIABLES))] == []


def test_secret_variables_are_never_passed_on() -> None:
    environ = dict.fromkeys((*local_command.SECRET_VARIABLES, "JAVA_HOME"), "x")

    assert local_command.application_environment(environ, environ) == {"JAVA_HOME": "x"}


def test_engine_gets_its_variables_and_the_agent_only_over_ssh() -> None:
    environ = {"DOCKER_HOST": "tcp://x", "XDG_RUNTIME_DIR": "/run/user/1", "SSH_AUTH_SOCK": "/a", "OTHER": "1"}

    assert local_command.engine_environment(environ) == {"DOCKER_HOST": "tcp://x", "XDG_RUNTIME_DIR": "/run/user/1"}
    over_ssh = environ | {"DOCKER_HOST": "ssh://x"}
    assert local_command.engine_environment(over_ssh)["SSH_AUTH_SOCK"] == "/a"


@pytest.mark.parametrize("how", ["setsid sh -c '{}' &", "(trap '' TERM HUP; setsid -f sh -c '{}')"])
def test_daemon_of_a_confined_command_ends_with_it(how: str, tmp_path: Path) -> None:
    kept = tmp_path / "pid"
    daemon = how.format(f"echo $$ >{kept}.half; mv {kept}.half {kept}; exec sleep 600")
    text = f"{daemon}\nuntil [ -s {kept} ]; do sleep 0.02; done"

    ended = local_command.run(["sh", "-c", text], lambda _: None, timeout_seconds=30, confined=True)

    assert (ended.ok, ended.left_running, ended.seconds < local_command.GRACE_SECONDS) == (True, 0, True)
    assert not Path(f"/proc/{int(kept.read_text())}").exists()


def test_confined_command_without_another_child_searches_no_process() -> None:
    """A search reads a file of every process of the machine."""
    text = """
from rolling_upgrade.engine import local_command
local_command.descendants = None
print(local_command.run(["true"], lambda _: None, timeout_seconds=30, confined=True).ok)
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)

    assert (done.stdout, done.stderr) == ("True\n", "")


def test_confined_command_leaves_existing_processes_running() -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            assert local_command.run(["true"], lambda _: None, timeout_seconds=30, confined=True).ok
            assert other.poll() is None
        finally:
            other.kill()


def test_capture_of_a_missing_program_returns_127() -> None:
    assert local_command.capture(["/nowhere/at-all"], timeout_seconds=5).status == 127
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
