"""Pulling images: the progress, the status, and what a pull leaves when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rolling_upgrade.engine import podman
from rolling_upgrade.engine.model import Image
from rolling_upgrade.engine.progress import Progress, parse
from rolling_upgrade.engine.shell import script
from tests.support.sample import image
from tests.support.shell import Programs, Signal, sh

#: A pull that receives a megabyte, waits for the test, and ends with the status that the test gives.
_RECEIVING = """\
case $1 in
info) echo "$here/tmp" ;;
image) exit 1 ;;
pull)
    echo "$PPID" > "$here/parent"
    head -c 1200000 /dev/zero > "$here/layer"
    mv "$here/layer" "$TMPDIR"
    read -r status < "$here/go"
    echo an-id
    exit "$status" ;;
esac
"""


@pytest.fixture
def go(programs: Programs, tmp_path: Path) -> Iterator[Signal]:
    """Gives a pull the status with which it ends."""
    (tmp_path / "tmp").mkdir()
    pipe = Signal(tmp_path / "go")
    programs.add("podman", _RECEIVING)
    programs.add("sleep", "exec /bin/sleep 0.02")
    yield pipe
    pipe.close()


@contextmanager
def pulling(programs: Programs, *images: Image) -> Iterator[subprocess.Popen[str]]:
    """Run a pull in its own session, with a line of output after it."""
    text = script(podman.pull(images), "echo pulled").text
    environment = {**os.environ, "PATH": programs.path}
    with subprocess.Popen(
        ["sh", "-c", text], stdout=subprocess.PIPE, env=environment, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def wait_for_end(process: subprocess.Popen[str], but: str = "") -> None:
    """Wait until the session has no processes, except for those of one program."""
    deadline = time.monotonic() + 30
    while found := names(process) - {but}:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def names(process: subprocess.Popen[str]) -> set[str]:
    """Return the programs of the session, without those that have ended and that their parent has not waited for."""
    listed = ["ps", "-s", str(process.pid), "-o", "stat=,comm="]
    rows = subprocess.run(listed, capture_output=True, text=True, check=False).stdout.splitlines()
    return {name for state, name in (row.split(maxsplit=1) for row in rows) if not state.startswith("Z")}


def test_pull_of_one_image_reports_its_bytes(programs: Programs, go: Signal, tmp_path: Path) -> None:
    with pulling(programs, image("backend")) as process:
        received = parse(line(process))
        go.give("0\n")

        assert received is not None
        assert (received.sent // 100_000, received.total) == (12, 0)
        assert (line(process), process.wait(30)) == ("pulled\n", 0)
        wait_for_end(process)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_pull_of_several_images_names_each_one(programs: Programs, go: Signal) -> None:
    with pulling(programs, image("backend"), image("frontend")) as process:
        for name in ("backend", "frontend"):
            assert parse(line(process)) == Progress(f"{name} 1.2 MB")
            go.give("0\n")

        assert (line(process), process.wait(30)) == ("pulled\n", 0)


def test_pull_that_fails_keeps_its_status_and_leaves_nothing(programs: Programs, go: Signal, tmp_path: Path) -> None:
    with pulling(programs, image("backend")) as process:
        assert parse(line(process))
        go.give("125\n")

        assert (line(process), process.wait(30)) == ("", 125)
        wait_for_end(process)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_pull_that_is_ended_leaves_nothing(programs: Programs, go: Signal, tmp_path: Path) -> None:
    with pulling(programs, image("backend")) as process:
        assert parse(line(process))
        subprocess.run(["pkill", "-TERM", "-s", str(process.pid)], check=True)

        assert process.wait(30) == -signal.SIGTERM
        wait_for_end(process)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_pull_whose_script_is_killed_reports_no_more(programs: Programs, go: Signal, tmp_path: Path) -> None:
    with pulling(programs, image("backend")) as process:
        assert parse(line(process))
        process.kill()
        os.kill(int((tmp_path / "parent").read_text()), signal.SIGKILL)

        process.wait(30)
        wait_for_end(process, but="podman")


def test_pull_without_a_place_to_measure_still_pulls(programs: Programs, go: Signal, tmp_path: Path) -> None:
    (tmp_path / "tmp").rmdir()
    (tmp_path / "own").mkdir()
    go.give("0\n")

    done = sh(f"export TMPDIR='{tmp_path}/own'\n{podman.pull([image('backend')])}\necho pulled", path=programs.path)

    assert (done.stdout, (tmp_path / "own" / "layer").exists()) == ("pulled\n", True)
