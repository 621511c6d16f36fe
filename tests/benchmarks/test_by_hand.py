"""The time by hand: each text runs in its own shell, and the first failure ends the script."""

from __future__ import annotations

import subprocess

from benchmarks.by_hand import timed


def run(*texts: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh"], input=timed(texts).text, capture_output=True, text=True, check=False)


def test_timed_prints_the_seconds_of_all_texts_last() -> None:
    done = run("echo first", "sleep 0.2; exit 0", "echo last")
    *before, seconds = done.stdout.split()
    assert (done.returncode, before) == (0, ["first", "last"])
    assert 0.2 <= float(seconds) < 10


def test_timed_first_failure_ends_the_script_with_its_exit_code() -> None:
    done = run("exit 3", "echo next")
    assert (done.returncode, done.stdout) == (3, "")


def test_timed_texts_read_no_input_and_share_no_variables() -> None:
    done = run("found=1; cat", 'echo "<${found:-}>"')
    assert done.stdout.split()[0] == "<>"
