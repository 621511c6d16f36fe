"""`inv monitor` on a real terminal and in a pipe, while a host goes away and comes back."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest

from tests.deploy.conftest import PROJECT, Site, wait_until

pytestmark = pytest.mark.xdist_group("monitor")


class Terminal:
    """A pseudo-terminal of 100 columns with the task on it, and everything it drew."""

    def __init__(self, *words: str) -> None:
        keys, self._screen = pty.openpty()
        self._keys, self.drawn = keys, b""
        os.set_blocking(keys, True)
        environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
        environ.pop("CI", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "invoke", *words],
            cwd=PROJECT,
            stdin=self._screen,
            stdout=self._screen,
            stderr=self._screen,
            env=environ,
            start_new_session=True,
        )
        os.close(self._screen)
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while data := os.read(self._keys, 65536):
                self.drawn += data
        except OSError:
            return

    @property
    def last(self) -> str:
        """What the newest drawing shows, without colors: each begins at the upper left corner."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.drawn.decode(errors="replace").rpartition("\x1b[H")[2])

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(5)
        os.close(self._keys)


@contextmanager
def terminal(*words: str) -> Iterator[Terminal]:
    found = Terminal(*words)
    try:
        yield found
    finally:
        found.close()


def row(text: str, host: str) -> str:
    """The line of a host on a drawing."""
    return next((line for line in text.splitlines() if line.lstrip().startswith(f"{host} ")), "")


def test_monitor_shows_a_host_that_goes_away_and_comes_back(site: Site) -> None:
    web1 = site.lab.hosts[0]
    with terminal("monitor", "--env", site.lab.name, "--interval", "1s") as screen:
        wait_until(lambda: "2 hosts, all well" in screen.last, "both hosts well")
        web1.sh("systemctl stop ssh.socket ssh.service", check=False)
        web1.sh("pkill -KILL -u deploy -x sshd-session || pkill -KILL -u deploy -x sshd")
        try:
            wait_until(lambda: "NOT REACHED since" in row(screen.last, "web1"), "the lost host")
            assert " well" in row(screen.last, "web2")
        finally:
            web1.sh("systemctl start ssh.service")
        wait_until(lambda: row(screen.last, "web1").rstrip().endswith("well"), "the host again")
        assert "web1  reached again" in screen.last
        web1.cut_network()
        try:
            wait_until(lambda: re.search("no answer for|NOT REACHED", row(screen.last, "web1")), "the silent host")
            assert " well" in row(screen.last, "web2")
        finally:
            web1.restore_network()
        wait_until(lambda: row(screen.last, "web1").rstrip().endswith("well"), "the host once more", 90)
        began = time.monotonic()
        screen.process.send_signal(signal.SIGINT)
        assert screen.process.wait(30) == 0
        assert time.monotonic() - began < 10
        wait_until(lambda: b"\x1b[?1049l" in screen.drawn, "the terminal as it was")
        assert b"\x1b[?25h" in screen.drawn
        assert b"Traceback" not in screen.drawn


def test_monitor_begins_with_a_host_down_and_in_a_pipe_writes_lines(site: Site) -> None:
    web2 = site.lab.hosts[1]
    web2.sh("systemctl stop ssh.socket ssh.service", check=False)
    try:
        process = site.start("monitor", "--interval", "1s")
        time_out = 60.0
        lines: list[str] = []
        assert process.stdout is not None
        reader = Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")), daemon=True)  # type: ignore[union-attr]
        reader.start()
        wait_until(lambda: any("web2  NOT REACHED: " in line for line in lines), "the lost host", time_out)
        wait_until(lambda: sum("web1" in line and line.endswith("  well\n") for line in lines) >= 2, "looks", time_out)
    finally:
        web2.sh("systemctl start ssh.service")
    wait_until(lambda: any("web2  " in line and line.endswith("  well\n") for line in lines), "the host", time_out)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(30) == 0
    reader.join(5)
    process.stdout.close()
    assert "\x1b" not in "".join(lines)


def test_monitor_wrong_words_are_refused(site: Site) -> None:
    code, output = site.run("monitor", "--interval", "soon")
    assert (code, "--interval" in output, "a duration such as" in output) == (2, True, True), output
    code, output = site.run("monitor", "--hosts", "web9")
    assert (code, "web9" in output) == (2, True), output
