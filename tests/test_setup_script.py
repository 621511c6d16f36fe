"""`make setup` on different machines, with stub programs instead of those of the system."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


# One worker: creating the environment takes seconds, and all tests share it.


@dataclass(frozen=True)
class Machine:
    """A clone of the project with an empty lock file, and a PATH with the test's programs first."""

    clone: Path
    programs: Path

    def add(self, program: str, text: str) -> None:
        """Add a program with this shell text in front of the system's."""
        path = self.programs / program
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def setup(self, **environ: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.programs}:{os.environ['PATH']}"
        return subprocess.run(
            ["scripts/setup.sh"],
            cwd=self.clone,
            env={**os.environ, "PATH": path, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def log(self) -> str:
        """Return the recorded calls of apt-get."""
        path = self.programs / "calls"
        return path.read_text() if path.exists() else ""


def make_machine(directory: Path) -> Machine:
    machine = Machine(directory / "clone", directory / "programs")
    (machine.clone / "lab").mkdir(parents=True)
    machine.programs.mkdir()
    shutil.copytree(ROOT / "scripts", machine.clone / "scripts")
    (machine.clone / "lab" / "packages.txt").write_text("podman\nmmdebstrap\n")
    (machine.clone / "tests").mkdir()
    (machine.clone / "tests" / "packages.txt").touch()
    (machine.clone / "requirements.lock").write_text("# nothing\n")
    machine.add("dpkg-query", "echo podman installed; echo mmdebstrap installed")
    machine.add("apt-get", f'echo "$@" >> {machine.programs}/calls')
    return machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return make_machine(tmp_path)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine on which setup succeeded after an incomplete run."""
    machine = make_machine(tmp_path_factory.mktemp("ready"))
    half = machine.clone / ".venv" / "bin"
    half.mkdir(parents=True)
    (half / "python").symlink_to("/bin/false")
    done = machine.setup()
    assert done.returncode == 0, done.stderr
    return machine


def test_setup_second_run_changes_nothing(ready: Machine) -> None:
    before = (ready.clone / ".venv" / "pyvenv.cfg").stat().st_mtime_ns

    again = ready.setup()

    assert again.stdout == "setup: ready\n"
    assert (ready.clone / ".venv" / "pyvenv.cfg").stat().st_mtime_ns == before


def test_setup_installed_packages_are_not_installed_again(ready: Machine) -> None:
    assert ready.log() == ""


def test_setup_changed_lock_recreates_the_environment(ready: Machine) -> None:
    (ready.clone / ".venv" / "stale").write_text("")
    (ready.clone / "requirements.lock").write_text("# changed\n")

    done = ready.setup()

    assert "creating .venv" in done.stdout
    assert not (ready.clone / ".venv" / "stale").exists()


def test_setup_incomplete_environment_is_recreated(ready: Machine) -> None:
    assert (ready.clone / ".venv" / "bin" / "pip").exists()


def test_setup_missing_package_is_installed(ready: Machine) -> None:
    ready.add("dpkg-query", "echo podman installed; echo mmdebstrap config-files")

    done = ready.setup()

    ready.add("dpkg-query", "echo podman installed; echo mmdebstrap installed")
    calls = ready.log().splitlines()
    (ready.programs / "calls").unlink()
    assert "installing Debian packages: mmdebstrap\n" in done.stdout
    assert [line.split()[-1] for line in calls] == ["update", "mmdebstrap"]


def test_setup_without_root_names_the_command_and_continues(ready: Machine) -> None:
    ready.add("dpkg-query", "echo podman installed")
    ready.add("id", "echo 1000")
    ready.add("sudo", "exit 1")

    done = ready.setup()

    ready.add("dpkg-query", "echo podman installed; echo mmdebstrap installed")
    ready.add("id", 'exec /usr/bin/id "$@"')
    assert done.returncode == 0
    assert "Ask an administrator for: apt-get install --no-install-recommends mmdebstrap" in done.stdout
    assert done.stdout.endswith("setup: ready\n")
    assert ready.log() == ""


def test_setup_with_sudo_uses_it(ready: Machine) -> None:
    ready.add("dpkg-query", "echo podman installed")
    ready.add("id", "echo 1000")
    ready.add("sudo", f'echo "sudo $1" >> {ready.programs}/calls; [ "$1" = -n ] || exec "$@"')

    ready.setup()

    ready.add("dpkg-query", "echo podman installed; echo mmdebstrap installed")
    ready.add("id", 'exec /usr/bin/id "$@"')
    calls = ready.log().splitlines()
    (ready.programs / "calls").unlink()
    assert [line.split()[-1] for line in calls] == ["-n", "env", "update", "env", "mmdebstrap"]


def test_setup_failing_apt_is_reported_and_setup_continues(ready: Machine) -> None:
    ready.add("dpkg-query", "echo podman installed")
    ready.add("apt-get", "echo no network >&2; exit 100")

    done = ready.setup()

    ready.add("dpkg-query", "echo podman installed; echo mmdebstrap installed")
    ready.add("apt-get", f'echo "$@" >> {ready.programs}/calls')
    assert (done.returncode, done.stderr) == (0, "no network\n")
    assert "continuing without them: deploying works, the lab (make demo, make test) does not." in done.stdout


def test_setup_without_a_python_names_the_package_to_install(machine: Machine) -> None:
    done = machine.setup(PYTHON="/nowhere/python3")

    assert done.returncode == 1
    assert "found no Python 3.11 or newer that can create virtual environments" in done.stdout
    assert machine.log().splitlines()[-1].endswith("python3-venv")


def test_setup_old_python_is_skipped(ready: Machine) -> None:
    ready.add("old-python", "exit 1")

    done = ready.setup(PYTHON="old-python python3")

    assert done.stdout == "setup: ready\n"
