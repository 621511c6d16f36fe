"""The program on a monitoring host, with a fake Prometheus, Alertmanager and blackbox-exporter."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from rolling_upgrade import rendering
from rolling_upgrade.features.observe import files as prometheus
from tests.support.shell import Programs

FILES = ("prometheus.yml", "alertmanager.yml", "blackbox.yml")
#: Kills every process of the run, as a power cut does.
KILL = "kill -9 0"
READ = """\
if [ "$1" = reload-or-restart ]; then
  for port in 9090 9093 9115; do date +%s >"$here/$port.read"; done
fi"""
TELLS = """\
port=${4#*//127.0.0.1:}; port=${port%%/*}
read_at=$(cat "$here/$port.read")
for program in prometheus alertmanager blackbox_exporter; do
  echo "${program}_config_last_reload_success_timestamp_seconds $read_at"
  echo "${program}_config_last_reload_successful 1"
done"""


class Monitor:
    """Debian's Prometheus directory with the common parts, and the program."""

    def __init__(self, directory: Path, programs: Programs) -> None:
        self.etc, self.parts = directory / "etc", directory / "etc" / "rolling"
        self.parts.mkdir(parents=True)
        for name in FILES:
            self.write(self.etc / name, f"# Debian's {name}\n")
        for name, text in prometheus.heads().items():
            self.write(self.parts / name, text)
        text = rendering.host_program("observe").replace("etc=/etc/prometheus", f"etc={self.etc}")
        text = text.replace("PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"PATH={programs.path}")
        self.program = directory / "observe"
        self.program.write_text(text.replace("wait_seconds=60", "wait_seconds=1"), "utf-8")
        for name in ("chgrp", "amtool", "prometheus-blackbox-exporter", "promtool"):
            programs.add(name)
        programs.add("systemctl", READ)
        programs.add("curl", TELLS)
        for port in (9090, 9093, 9115):
            (directory / f"{port}.read").write_text("0\n")

    @staticmethod
    def write(path: Path, text: str) -> None:
        """Write a file that is older than the run."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        os.utime(path, (time.time() - 100, time.time() - 100))

    def stage(self, name: str, content: str = "one") -> None:
        for part in prometheus.PARTS:
            self.write(self.parts / ".staged" / name / part, f"# {name} {part} {content}\n")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", str(self.program), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, start_new_session=True)

    def install(self, name: str, content: str = "one") -> subprocess.CompletedProcess[str]:
        self.stage(name, content)
        return self.run("install", name)

    def checks(self) -> bool:
        return self.run("check").returncode == 0

    def files(self) -> dict[str, tuple[str, int]]:
        """Return the content and the mode of each program's file."""
        found = [self.etc / name for name in FILES if (self.etc / name).exists()]
        return {path.name: (path.read_text("utf-8"), path.stat().st_mode & 0o777) for path in found}

    def left(self) -> set[str]:
        """Return all other files in the directories of the parts and of the programs."""
        beside = {path.name for path in self.parts.iterdir()} - set(prometheus.HEADS)
        return (beside | {path.name for path in self.etc.iterdir()} - set(FILES)) - {"rolling", ".lock", ".staged"}


@pytest.fixture
def monitor(tmp_path: Path, programs: Programs) -> Monitor:
    return Monitor(tmp_path, programs)


def test_observe_program_installs_two_environments_and_removes_one(monitor: Monitor) -> None:
    assert [monitor.install(name).returncode for name in ("shop.production", "shop.staging")] == [0, 0]
    assert (monitor.checks(), monitor.left()) == (True, {"shop.production", "shop.staging"})

    assert monitor.run("remove", "shop.staging").returncode == 0

    assert (monitor.checks(), monitor.left()) == (True, {"shop.production"})
    texts = "".join(text for text, _ in monitor.files().values())
    assert ("shop.production" in texts, "shop.staging" in texts) == (True, False)


def test_observe_program_restores_the_previous_files(monitor: Monitor, programs: Programs) -> None:
    """Debian's files are world-readable and of another group: with mode 0640, no program could read its file."""
    before = monitor.files()
    programs.add("systemctl")

    done = monitor.install("shop.production")

    assert (done.returncode, "the previous files are restored" in done.stdout) == (1, True)
    assert (monitor.files(), monitor.left()) == (before, set())


def test_observe_program_restores_missing_files_as_missing(monitor: Monitor, programs: Programs) -> None:
    (monitor.etc / "blackbox.yml").unlink()
    before = monitor.files()
    programs.add("systemctl")

    assert monitor.install("shop.production").returncode == 1
    assert (monitor.files(), monitor.left()) == (before, set())


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("chgrp", "*"),
        ("cat", "*/scrape.yml"),
        ("cp", "*/blackbox.yml.new"),
        ("mv", "*/etc/alertmanager.yml"),
    ],
)
def test_observe_program_fails_when_a_command_fails(
    monitor: Monitor, programs: Programs, name: str, wrong: str
) -> None:
    """After a failed write, for example on a full disk, no truncated file is used."""
    monitor.install("shop.production")
    before = monitor.files()
    programs.add(
        name,
        f"""\
for last in "$@"; do :; done
case $last in {wrong}) if mkdir "$here/failed" 2>/dev/null; then printf half >>"$last"; exit 1; fi ;; esac
exec /bin/{name if name != "chgrp" else "true"} "$@" """,
    )

    assert monitor.install("shop.staging").returncode == 1
    assert monitor.files() == before
    assert not (monitor.parts / "shop.staging").exists()


@pytest.mark.parametrize("killing", ["valid", "mv", "reload"])
def test_observe_program_killed_anywhere_is_detected_and_repaired(
    monitor: Monitor, programs: Programs, killing: str
) -> None:
    monitor.install("shop.production")
    if killing == "valid":
        programs.add("promtool", KILL)
    elif killing == "mv":
        programs.add("mv", f'/bin/mv "$@"; case "$2" in */prometheus.yml.new) {KILL} ;; esac')
    else:
        programs.add("systemctl", KILL)
    monitor.install("shop.production", "two")
    programs.add("promtool")
    programs.add("mv", 'exec /bin/mv "$@"')
    programs.add("systemctl", READ)

    assert not monitor.checks()
    assert monitor.install("shop.production", "two").returncode == 0
    assert (monitor.checks(), monitor.left()) == (True, {"shop.production"})


def test_observe_program_killed_during_a_removal_restores_the_environment(monitor: Monitor, programs: Programs) -> None:
    """Otherwise the programs would silently keep using the removed parts."""
    monitor.install("shop.production")
    monitor.install("shop.staging")
    programs.add("promtool", KILL)
    monitor.run("remove", "shop.staging")
    programs.add("promtool")

    assert not monitor.checks()
    assert monitor.install("shop.production").returncode == 0
    assert (monitor.checks(), monitor.left()) == (True, {"shop.production", "shop.staging"})


def test_observe_program_removes_staged_parts(monitor: Monitor) -> None:
    monitor.install("shop.production")
    monitor.stage("shop.staging")

    assert monitor.run("remove", "shop.staging").returncode == 0
    assert list((monitor.parts / ".staged").iterdir()) == []


def test_observe_program_detects_a_program_that_has_not_read_its_file(monitor: Monitor, tmp_path: Path) -> None:
    monitor.install("shop.production")
    assert monitor.checks()
    (tmp_path / "9093.read").write_text("1000\n")

    assert not monitor.checks()
