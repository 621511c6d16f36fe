"""Installing, inspecting and removing the watchdog under a real `sh`, with a fake systemd."""

from __future__ import annotations

import base64
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine.shell import Script
from rolling_upgrade.features.watchdog import shell as watchdog
from rolling_upgrade.features.watchdog.shell import Files, WatchdogStatus, parse_status
from tests.support.sample import application
from tests.support.shell import Programs, moved, sh

APP = application()
FILES = Files(b"PK\x03\x04\0program\xff", '{"password": "it\'s $HOME hunter2"}\n', "[Service]\nExecStart=/bin/true\n")
#: A systemd whose unit touches the file `alive` when it starts, as the watchdog does.
SYSTEMD = """\
case "$*" in
  *restart*) touch "$here/home/watchdog/alive" ;;
  *is-active*) [ -e "$here/home/watchdog/alive" ] ;;
  *show*) printf 'ActiveState=active\\nNRestarts=0\\n' ;;
esac"""


ANSWER = """\
installed=yes
version=0123
uptime=5000
ActiveState=active
SubState=running
NRestarts=2
ActiveEnterTimestampMonotonic=1000000000
memory_kb=15000
ticks=400
ticks_a_second=100
alive=3
memory={"boot": "b", "memory": {"recoveries": [1.5, 2.5], "given_up": false}}
last=2026-11-23 07:00:00 restart backend: done = ok
"""
WATCHDOG = WatchdogStatus(
    True, True, True, 3, 2, 0.1, 15_360_000, 2, False, "2026-11-23 07:00:00 restart backend: done = ok"
)


class Machine:
    """A home directory, the application's directory, and a fake systemd."""

    def __init__(self, root: Path, programs: Programs) -> None:
        self.user, self.home, self.programs = root / "user", root / "home", programs
        self.place, self.unit = self.home / "watchdog", self.user / ".config/systemd/user/shop-watchdog.service"
        self.user.mkdir()
        self.home.mkdir()
        programs.add("systemctl", SYSTEMD)

    def run(self, script: Script) -> subprocess.CompletedProcess[str]:
        text = moved(script, APP, self.home)
        return sh(text.replace("PATH=/usr/local/sbin", f"PATH={self.programs.directory}:/usr/local/sbin"))

    def install(self, files: Files = FILES) -> subprocess.CompletedProcess[str]:
        return self.run(watchdog.install(APP, files))

    def started(self) -> int:
        """The number of times the unit was started."""
        return sum("restart" in call for call in self.programs.calls("systemctl"))


@pytest.fixture
def machine(tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path, programs)
    monkeypatch.setenv("HOME", str(found.user))
    return found


def test_install_writes_files_for_its_user_only(machine: Machine) -> None:
    done = machine.install()

    assert (done.returncode, done.stdout) == (0, "installed\n"), done
    settings, program = machine.place / "settings.json", machine.place / "watchdog.pyz"
    assert (settings.read_text(), program.read_bytes()) == (FILES.settings, FILES.program)
    assert (settings.stat().st_mode & 0o777, machine.place.stat().st_mode & 0o777) == (0o600, 0o700)
    assert program.stat().st_mode & 0o077 == 0
    link = machine.unit.parent / "default.target.wants" / machine.unit.name
    assert link.resolve() == machine.unit
    assert machine.unit.read_text() == FILES.unit


def test_install_shows_no_secret() -> None:
    script = watchdog.install(APP, FILES)

    (secret,) = script.secrets
    assert base64.b64decode(secret).decode() == FILES.settings
    assert secret in script.text
    assert not {secret, "hunter2"} & set(re.split(r"\s|'", script.masked))


def test_install_of_the_same_version_changes_nothing_and_another_version_replaces_it(machine: Machine) -> None:
    machine.install()

    again = machine.install()
    other = machine.install(Files(FILES.program, "{}\n", FILES.unit))

    assert (again.stdout, other.stdout, machine.started()) == ("unchanged\n", "replaced\n", 2)
    assert (machine.place / "settings.json").read_text() == "{}\n"


def test_install_of_the_same_version_starts_a_stopped_watchdog(machine: Machine) -> None:
    machine.install()
    (machine.place / "alive").unlink()

    assert (machine.install().returncode, machine.started()) == (0, 2)


def test_install_that_does_not_start_fails_with_the_end_of_the_log_and_can_be_repeated(machine: Machine) -> None:
    machine.programs.add("sleep")
    machine.programs.add("systemctl", 'case "$*" in *is-active*) exit 3 ;; esac')
    machine.place.mkdir()
    (machine.place / "log").write_text("no settings of a watchdog\n")

    done = machine.install()

    assert (done.returncode, "did not start:\nno settings of a watchdog" in done.stdout) == (1, True)
    machine.programs.add("systemctl", SYSTEMD)
    assert machine.install().returncode == 0


@pytest.mark.parametrize(
    ("python", "output"),
    [
        ("[ $1 = --version ] && echo Python 3.9.2", "Python 3.9.2\n"),
        ("echo 'python3: not found' >&2; exit 127", "python3: not found\n"),
    ],
)
def test_install_without_a_recent_python_changes_nothing(python: str, output: str, machine: Machine) -> None:
    machine.programs.add("python3", python)

    done = machine.install()

    assert (done.returncode, done.stdout) == (watchdog.NO_PYTHON_STATUS, output)
    assert (list(machine.home.iterdir()), list(machine.user.iterdir())) == ([], [])


def test_install_on_a_host_that_is_not_prepared_changes_nothing(machine: Machine) -> None:
    machine.home.rmdir()

    done = machine.install()

    assert (done.returncode, list(machine.user.iterdir())) == (watchdog.NOT_PREPARED_STATUS, [])
    assert not machine.home.exists()


def test_uninstall_removes_everything_and_does_nothing_the_second_time(machine: Machine) -> None:
    machine.install()
    (machine.home / "releases.jsonl").touch()

    done, again = machine.run(watchdog.uninstall(APP)), machine.run(watchdog.uninstall(APP))

    assert (done.stdout, again.stdout) == ("gone\n", "nothing\n")
    assert [path.name for path in machine.home.iterdir()] == ["releases.jsonl"]
    assert [path for path in machine.user.rglob("*") if not path.is_dir()] == []


def test_status_before_and_after_an_installation(machine: Machine) -> None:
    none = parse_status(machine.run(watchdog.status(APP)).stdout, FILES.version)
    machine.install()
    (machine.place / "log").write_text("first\nlast = line\n")
    (machine.place / "memory.json").write_text('{"boot": "b",\n"memory": {"recoveries": [1.5], "given_up": true}}')

    found = parse_status(machine.run(watchdog.status(APP)).stdout, FILES.version)

    assert (none.installed, none.current, none.recoveries, none.last) == (False, False, 0, "")
    assert (found.installed, found.runs, found.current, found.alive_seconds < 60) == (True, True, True, True)
    assert (found.recoveries, found.given_up, found.last) == (1, True, "last = line")


def test_log_prints_its_end_or_says_that_no_watchdog_has_run(machine: Machine) -> None:
    none = machine.run(watchdog.log(APP, 2)).stdout
    machine.place.mkdir()
    (machine.place / "log").write_text("one\ntwo\nthree\n")

    assert (none, machine.run(watchdog.log(APP, 2)).stdout) == ("no watchdog has run here\n", "two\nthree\n")


def test_parse_status_answer_of_a_host() -> None:
    assert parse_status(ANSWER, "0123") == WATCHDOG


def test_parse_status_another_version_is_not_current() -> None:
    assert not parse_status(ANSWER, "4567").current


@pytest.mark.parametrize(
    "memory", ["", "{", "[]", "null", "7", "{}", '{"memory": 7}', '{"memory": []}', '{"memory": {"given_up": null}}']
)
def test_parse_status_malformed_memory_has_no_recoveries(memory: str) -> None:
    rows = [row if not row.startswith("memory=") else f"memory={memory}" for row in ANSWER.splitlines()]

    found = parse_status("\n".join(rows), "0123")

    assert found == replace(WATCHDOG, recoveries=0)


@pytest.mark.parametrize("text", ["", "installed=no\nversion=\nuptime=\nalive=-5\nmemory=\nlast=\n", "Welcome!\n"])
def test_parse_status_host_without_a_watchdog(text: str) -> None:
    assert parse_status(text, "0123") == WatchdogStatus(False, False, False, 0, 0, 0.0, 0, 0, False, "")


def test_parse_status_missing_numbers_are_zero() -> None:
    unknown = ANSWER.replace("15000", "").replace("400\n", "\n")

    found = parse_status(unknown, "0123")

    assert (found.memory_bytes, found.cpu_percent) == (0, 0.0)


def test_watchdog_leaves_checks_inside_containers_their_executable_memory() -> None:
    """They are its descendants and inherit its seccomp filters: the engines of Node.js and Java would end at once."""
    unit = (Path(__file__).parents[3] / "templates/systemd/watchdog.service.j2").read_text()

    assert "\nMemoryDenyWriteExecute" not in unit
