"""The live dashboard of real hosts, in a real terminal, which it restores, and through a pipe."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from threading import Thread

import pytest

from lab.host import Host
from tests.deploy.conftest import PROJECT, Site, interrupt, wait_until

pytestmark = pytest.mark.hosts(2)

COLUMNS, ROWS = 80, 24
#: The escape sequences that the dashboard sends to a terminal, or one character of text.
_OUTPUT = re.compile(
    r"\x1b\[(?P<row>\d+);(?P<column>\d+)H|\x1b\[(?P<code>[\d;?]*)(?P<letter>[A-Za-z])|(?P<text>[^\x1b])"
)

#: The start of an escape sequence whose end has not arrived.
_PARTIAL = re.compile(r"\x1b(\[[\d;?]*)?$")


class Screen:
    """A terminal of 80 columns that records everything sent to it."""

    def __init__(self) -> None:
        self.sent = ""
        self._rows = [[" "] * COLUMNS for _ in range(ROWS)]
        self._row = self._column = 0

    def take(self, text: str) -> None:
        """Show more text. Raises IndexError outside the screen."""
        self.sent += text
        for match in _OUTPUT.finditer(text):
            if match["row"]:
                self._row, self._column = int(match["row"]) - 1, int(match["column"]) - 1
            elif match["letter"] == "K":
                self._rows[self._row][self._column :] = [" "] * (COLUMNS - self._column)
            elif match["letter"] == "J":
                self._rows = [[" "] * COLUMNS for _ in range(ROWS)]
            elif match["text"] and match["text"].isprintable():
                self._rows[self._row][self._column] = match["text"]
                self._column += 1

    @property
    def lines(self) -> list[str]:
        """The visible lines without trailing spaces."""
        return ["".join(row).rstrip() for row in self._rows]

    def shows(self, pattern: str) -> bool:
        """Return whether a line matches the pattern from its start."""
        return any(re.match(pattern, line) for line in self.lines)


class Dashboard:
    """`inv monitor` on a new terminal."""

    def __init__(self, process: subprocess.Popen[bytes], leader: int, follower: int) -> None:
        self.process, self.leader, self.follower = process, leader, follower
        self.screen = Screen()
        self._before = termios.tcgetattr(follower)
        self.reader = Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")()
        rest = ""
        # Reading fails once the terminal is closed on the other side.
        with contextlib.suppress(OSError):
            while chunk := os.read(self.leader, 65536):
                rest += decoder.decode(chunk)
                partial = _PARTIAL.search(rest)
                complete = rest[: partial.start()] if partial else rest
                self.screen.take(complete)
                rest = rest[len(complete) :]

    def until(self, pattern: str, seconds: float = 60) -> None:
        """Wait for a line that matches the pattern from its start."""
        try:
            wait_until(lambda: self.screen.shows(pattern), pattern, seconds)
        except Exception as error:
            error.add_note("\n".join(self.screen.lines))
            raise

    @property
    def restored(self) -> bool:
        """Whether the terminal's modes, screen and cursor are restored."""
        screen_restored = self.screen.sent.endswith("\x1b[?25h\x1b[?1049l")
        return screen_restored and termios.tcgetattr(self.follower) == self._before


@contextlib.contextmanager
def dashboard(site: Site, *words: str) -> Iterator[Dashboard]:
    """Run the dashboard, and kill it at the end if it still runs."""
    leader, follower = os.openpty()
    fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    excluded = ("CI", "COLUMNS", "LINES", "NO_COLOR")
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-m", "invoke", "monitor", "--env", site.lab.name, *words],
        cwd=PROJECT,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={key: value for key, value in os.environ.items() if key not in excluded} | {"TERM": "xterm-256color"},
    )
    running = Dashboard(process, leader, follower)
    try:
        yield running
    finally:
        process.kill()
        process.wait()
        os.close(follower)
        running.reader.join(20)
        os.close(leader)


@pytest.fixture
def web2(site: Site) -> Iterator[Host]:
    """The second host. Its network is restored at the end."""
    host = site.lab.hosts[1]
    yield host
    host.restore_network()


def test_monitor_host_without_network_reconnects_while_the_other_is_shown(site: Site, web2: Host) -> None:
    with dashboard(site, "--interval", "1s") as monitor:
        monitor.until(r"● web1  healthy .* \d+ ms +\ds$")
        monitor.until(r"● web2  healthy ")
        assert monitor.screen.shows(r" +backend (blue|green) v1, \d+ restarts? · frontend (blue|green) v1, ")

        web2.cut_network()
        monitor.until(r"\? web2  UNREACHABLE since \d\d:\d\d:\d\d ")
        monitor.until(r" +(cannot reach|the connection dropped)")
        monitor.until(r"● web1  healthy .* ms +[0-3]s$")
        assert monitor.screen.shows(r"\d\d:\d\d:\d\d  web2  \? unreachable: ")

        web2.restore_network()
        monitor.until(r"● web2  healthy ")
        monitor.until(r"\d\d:\d\d:\d\d  web2  ● reachable again after ")

        os.write(monitor.leader, b"\x03")
        assert monitor.process.wait(timeout=5) == 0
        wait_until(lambda: monitor.restored, "the restored terminal")


@pytest.mark.extended
def test_monitor_starts_while_a_host_is_down_and_stops_on_sigterm(site: Site, web2: Host) -> None:
    web2.cut_network()
    with dashboard(site, "--interval", "1s") as monitor:
        monitor.until(r"● web1  healthy ")
        monitor.until(r"\? web2  UNREACHABLE since .* never$")

        monitor.process.send_signal(signal.SIGTERM)
        assert monitor.process.wait(timeout=5) == 0
        wait_until(lambda: monitor.restored, "the restored terminal")


def test_monitor_shows_a_deploy_and_a_crash_as_they_happen_and_stops_on_sigterm(site: Site) -> None:
    host = site.lab.hosts[0]
    with dashboard(site, "--interval", "1s", "--hosts", "web1") as monitor:
        monitor.until(r"● web1  healthy ")

        deploy = site.start("deploy", "--tag", "v2", "--hosts", "web1")
        monitor.until(r"▲ web1  locked by ")
        output, _ = deploy.communicate(timeout=240)
        assert deploy.returncode == 0, output
        monitor.until(r"[\d:]{8}  web1  ▲ backend: (blue|green) v1 → (blue|green) v2$")
        monitor.until(r"[\d:]{8}  web1  ▲ .* released the lock: ")
        monitor.until(r"● web1  healthy ")

        name = site.running_container(host)
        host.sh(f"podman stop -t 1 {name}", user="deploy")
        monitor.until(r"✗ web1  FAILED: backend container")
        host.sh(f"podman start {name}", user="deploy")
        monitor.until(r"[\d:]{8}  web1  ● backend container recovered$")
        monitor.until(r"● web1  healthy ")

        monitor.process.send_signal(signal.SIGTERM)
        assert monitor.process.wait(timeout=5) == 0
        wait_until(lambda: monitor.restored, "the restored terminal")


def test_monitor_through_a_pipe_writes_lines_and_stops_on_sigint(site: Site, web2: Host) -> None:
    web2.cut_network()
    process = site.start("monitor", "--interval", "1s")
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if any(" web1  healthy " in row for row in lines) and any(" web2  UNREACHABLE" in row for row in lines):
            break

    code, rest = interrupt(process, signal.SIGINT)

    text = "".join(lines) + rest
    assert code == 0, text
    assert re.search(r"^[\d:]{8} web1  healthy  \d+ ms  backend (blue|green) v1  frontend (blue|green) v1$", text, re.M)
    assert re.search(r"^[\d:]{8} web2  \? unreachable: cannot reach ", text, re.M)
    assert "\x1b" not in text


def test_monitor_distinguishes_a_changed_host_key_from_a_refused_login(site: Site) -> None:
    known = site.directory / "known_hosts"
    lines = known.read_text().splitlines()
    first, second = (next(line for line in lines if host.address in line) for host in site.lab.hosts[:2])
    known.write_text(
        "\n".join([*(line for line in lines if line != first), f"{first.split()[0]} {second.partition(' ')[2]}"]) + "\n"
    )
    site.edit_hosts(web2={"user": "stranger"})

    with dashboard(site, "--interval", "1s") as monitor:
        monitor.until(r"\? web1  UNREACHABLE")
        monitor.until(r" +the host key of .* is not the recorded one")
        monitor.until(r" +stranger@\S+ refused the login")


def test_monitor_invalid_options_exit_with_2(site: Site) -> None:
    code, output = site.run("monitor", "--interval", "soon")
    assert (code, "--interval" in output) == (2, True), output
    code, output = site.run("monitor", "--hosts", "nope")
    assert (code, "--hosts" in output) == (2, True), output
