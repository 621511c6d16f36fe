"""The live dashboard against real hosts: in a real terminal, which it gives back, and through a pipe."""

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

pytestmark = pytest.mark.xdist_group("monitor")

COLUMNS, ROWS = 80, 24
#: All that the dashboard sends to a terminal: where to write, what to clear, colors, which screen; else it is text.
_SENT = re.compile(r"\x1b\[(?P<row>\d+);(?P<column>\d+)H|\x1b\[(?P<code>[\d;?]*)(?P<letter>[A-Za-z])|(?P<text>[^\x1b])")

#: A sequence whose other half is still to come.
_CUT = re.compile(r"\x1b(\[[\d;?]*)?$")


class Screen:
    """What a terminal of 80 columns shows after all that was sent to it."""

    def __init__(self) -> None:
        self.sent = ""
        self._rows = [[" "] * COLUMNS for _ in range(ROWS)]
        self._row = self._column = 0

    def take(self, text: str) -> None:
        """Show more; what would leave the screen raises IndexError."""
        self.sent += text
        for found in _SENT.finditer(text):
            if found["row"]:
                self._row, self._column = int(found["row"]) - 1, int(found["column"]) - 1
            elif found["letter"] == "K":
                self._rows[self._row][self._column :] = [" "] * (COLUMNS - self._column)
            elif found["letter"] == "J":
                self._rows = [[" "] * COLUMNS for _ in range(ROWS)]
            elif found["text"] and found["text"].isprintable():
                self._rows[self._row][self._column] = found["text"]
                self._column += 1

    @property
    def lines(self) -> list[str]:
        """The lines as a person reads them."""
        return ["".join(row).rstrip() for row in self._rows]

    def shows(self, pattern: str) -> bool:
        """Whether a line begins like this."""
        return any(re.match(pattern, line) for line in self.lines)


class Dashboard:
    """`inv monitor` on a terminal of its own."""

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
            while piece := os.read(self.leader, 65536):
                rest += decoder.decode(piece)
                cut = _CUT.search(rest)
                whole = rest[: cut.start()] if cut else rest
                self.screen.take(whole)
                rest = rest[len(whole) :]

    def until(self, pattern: str, seconds: float = 60) -> None:
        """Wait for a line that begins like this."""
        try:
            wait_until(lambda: self.screen.shows(pattern), pattern, seconds)
        except Exception as error:
            error.add_note("\n".join(self.screen.lines))
            raise

    @property
    def restored(self) -> bool:
        """Whether the terminal is as it was: its modes, its first screen, its cursor."""
        back = self.screen.sent.endswith("\x1b[?25h\x1b[?1049l")
        return back and termios.tcgetattr(self.follower) == self._before


@contextlib.contextmanager
def dashboard(site: Site, *words: str) -> Iterator[Dashboard]:
    """The dashboard, killed at the end should it still run."""
    leader, follower = os.openpty()
    fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    left_out = ("CI", "COLUMNS", "LINES", "NO_COLOR")
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-m", "invoke", "monitor", "--env", site.lab.name, *words],
        cwd=PROJECT,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={key: value for key, value in os.environ.items() if key not in left_out} | {"TERM": "xterm-256color"},
    )
    seen = Dashboard(process, leader, follower)
    try:
        yield seen
    finally:
        process.kill()
        process.wait()
        os.close(follower)
        seen.reader.join(20)
        os.close(leader)


@pytest.fixture
def web2(site: Site) -> Iterator[Host]:
    """The second host, whose network is whole again at the end."""
    host = site.lab.hosts[1]
    yield host
    host.restore_network()


def test_monitor_host_without_network_reconnects_while_the_other_is_shown(site: Site, web2: Host) -> None:
    with dashboard(site, "--interval", "1s") as seen:
        seen.until(r"● web1  healthy .* \d+ ms +\ds$")
        seen.until(r"● web2  healthy ")
        assert seen.screen.shows(r" +backend (blue|green) v1, \d+ restarts? · frontend (blue|green) v1, ")

        web2.cut_network()
        seen.until(r"\? web2  UNREACHABLE since \d\d:\d\d:\d\d ")
        seen.until(r" +(cannot reach|the connection dropped)")
        seen.until(r"● web1  healthy .* ms +[0-3]s$")
        assert seen.screen.shows(r"\d\d:\d\d:\d\d  web2  \? unreachable: ")

        web2.restore_network()
        seen.until(r"● web2  healthy ")
        seen.until(r"\d\d:\d\d:\d\d  web2  ● reachable again after ")

        os.write(seen.leader, b"\x03")
        assert seen.process.wait(timeout=5) == 0
        wait_until(lambda: seen.restored, "the terminal as it was")


def test_monitor_starts_while_a_host_is_down_and_stops_on_sigterm(site: Site, web2: Host) -> None:
    web2.cut_network()
    with dashboard(site, "--interval", "1s") as seen:
        seen.until(r"● web1  healthy ")
        seen.until(r"\? web2  UNREACHABLE since .* never$")

        seen.process.send_signal(signal.SIGTERM)
        assert seen.process.wait(timeout=5) == 0
        wait_until(lambda: seen.restored, "the terminal as it was")


def test_monitor_shows_a_deploy_and_a_crash_as_they_happen(site: Site) -> None:
    host = site.lab.hosts[0]
    with dashboard(site, "--interval", "1s", "--hosts", "web1") as seen:
        seen.until(r"● web1  healthy ")

        deploy = site.start("deploy", "--tag", "v2", "--hosts", "web1")
        seen.until(r"▲ web1  locked by ")
        output, _ = deploy.communicate(timeout=240)
        assert deploy.returncode == 0, output
        seen.until(r"[\d:]{8}  web1  ▲ backend: (blue|green) v1 → (blue|green) v2$")
        seen.until(r"[\d:]{8}  web1  ▲ .* released the lock: ")
        seen.until(r"● web1  healthy ")

        name = next(name for name, runs in site.running(host).items() if runs and "backend" in name)
        host.sh(f"podman stop -t 1 {name}", user="deploy")
        seen.until(r"✗ web1  FAILED: backend container")
        host.sh(f"podman start {name}", user="deploy")
        seen.until(r"[\d:]{8}  web1  ● backend container recovered$")
        seen.until(r"● web1  healthy ")


def test_monitor_through_a_pipe_writes_lines_and_stops_on_sigint(site: Site, web2: Host) -> None:
    web2.cut_network()
    process = site.start("monitor", "--interval", "1s")
    said: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if any(" web1  healthy " in one for one in said) and any(" web2  UNREACHABLE" in one for one in said):
            break

    code, rest = interrupt(process, signal.SIGINT)

    text = "".join(said) + rest
    assert code == 0, text
    assert re.search(r"^[\d:]{8} web1  healthy  \d+ ms  backend (blue|green) v1  frontend (blue|green) v1$", text, re.M)
    assert re.search(r"^[\d:]{8} web2  \? unreachable: cannot reach ", text, re.M)
    assert "\x1b" not in text


def test_monitor_distinguishes_a_changed_host_key_from_a_refused_login(site: Site) -> None:
    known = site.folder / "known_hosts"
    lines = known.read_text().splitlines()
    first, second = (next(line for line in lines if host.address in line) for host in site.lab.hosts[:2])
    known.write_text(
        "\n".join([*(line for line in lines if line != first), f"{first.split()[0]} {second.partition(' ')[2]}"]) + "\n"
    )
    site.edit_hosts(web2={"user": "stranger"})

    with dashboard(site, "--interval", "1s") as seen:
        seen.until(r"\? web1  UNREACHABLE")
        seen.until(r" +the host key of .* is not the recorded one")
        seen.until(r" +stranger@\S+ refused the login")


def test_monitor_invalid_options_exit_with_2(site: Site) -> None:
    code, output = site.run("monitor", "--interval", "soon")
    assert (code, "--interval" in output) == (2, True), output
    code, output = site.run("monitor", "--hosts", "nope")
    assert (code, "--hosts" in output) == (2, True), output
