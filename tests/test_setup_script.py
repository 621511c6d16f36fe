"""`make setup` on machines of all kinds; small programs of the test stand in for those of the system."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


# One worker: making an environment takes seconds, and one serves them all.


@dataclass(frozen=True)
class Machine:
    """A clone of the project with an empty lock file, and a PATH on which the test's programs come first."""

    clone: Path
    programs: Path

    def has(self, program: str, text: str) -> None:
        """Put a program of that name and shell text in front of the system's."""
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
        """What the stand-in of apt-get was asked."""
        path = self.programs / "asked"
        return path.read_text() if path.exists() else ""


def make_machine(folder: Path) -> Machine:
    machine = Machine(folder / "clone", folder / "programs")
    (machine.clone / "lab").mkdir(parents=True)
    machine.programs.mkdir()
    shutil.copytree(ROOT / "scripts", machine.clone / "scripts")
    (machine.clone / "lab" / "packages.txt").write_text("podman\nmmdebstrap\n")
    (machine.clone / "tests").mkdir()
    (machine.clone / "tests" / "packages.txt").touch()
    (machine.clone / "requirements.lock").write_text("# nothing\n")
    machine.has("dpkg-query", "echo podman installed; echo mmdebstrap installed")
    machine.has("apt-get", f'echo "$@" >> {machine.programs}/asked')
    return machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return make_machine(tmp_path)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine on which setup has succeeded once, after a run that was broken off half-way."""
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

    assert "making .venv" in done.stdout
    assert not (ready.clone / ".venv" / "stale").exists()


def test_setup_incomplete_environment_is_recreated(ready: Machine) -> None:
    assert (ready.clone / ".venv" / "bin" / "pip").exists()


def test_setup_missing_package_is_installed(ready: Machine) -> None:
    ready.has("dpkg-query", "echo podman installed; echo mmdebstrap config-files")

    done = ready.setup()

    ready.has("dpkg-query", "echo podman installed; echo mmdebstrap installed")
    asked = ready.log().splitlines()
    (ready.programs / "asked").unlink()
    assert "installing Debian packages: mmdebstrap\n" in done.stdout
    assert [line.split()[-1] for line in asked] == ["update", "mmdebstrap"]


def test_setup_without_root_names_the_command_and_continues(ready: Machine) -> None:
    ready.has("dpkg-query", "echo podman installed")
    ready.has("id", "echo 1000")
    ready.has("sudo", "exit 1")

    done = ready.setup()

    ready.has("dpkg-query", "echo podman installed; echo mmdebstrap installed")
    ready.has("id", 'exec /usr/bin/id "$@"')
    assert done.returncode == 0
    assert "Ask an administrator for: apt-get install --no-install-recommends mmdebstrap" in done.stdout
    assert done.stdout.endswith("setup: ready\n")
    assert ready.log() == ""


def test_setup_with_sudo_uses_it(ready: Machine) -> None:
    ready.has("dpkg-query", "echo podman installed")
    ready.has("id", "echo 1000")
    ready.has("sudo", f'echo "sudo $1" >> {ready.programs}/asked; [ "$1" = -n ] || exec "$@"')

    ready.setup()

    ready.has("dpkg-query", "echo podman installed; echo mmdebstrap installed")
    ready.has("id", 'exec /usr/bin/id "$@"')
    asked = ready.log().splitlines()
    (ready.programs / "asked").unlink()
    assert [line.split()[-1] for line in asked] == ["-n", "env", "update", "env", "mmdebstrap"]


def test_setup_failing_apt_is_reported_and_setup_continues(ready: Machine) -> None:
    ready.has("dpkg-query", "echo podman installed")
    ready.has("apt-get", "echo no network >&2; exit 100")

    done = ready.setup()

    ready.has("dpkg-query", "echo podman installed; echo mmdebstrap installed")
    ready.has("apt-get", f'echo "$@" >> {ready.programs}/asked')
    assert (done.returncode, done.stderr) == (0, "no network\n")
    assert "going on without them: deploying works, the lab (make demo, make test) will not." in done.stdout


def test_setup_without_a_python_names_the_package_to_install(machine: Machine) -> None:
    done = machine.setup(PYTHON="/nowhere/python3")

    assert done.returncode == 1
    assert "no Python 3.11 or newer that can make virtual environments was found" in done.stdout
    assert machine.log().splitlines()[-1].endswith("python3-venv")


def test_setup_old_python_is_skipped(ready: Machine) -> None:
    ready.has("old-python", "exit 1")

    done = ready.setup(PYTHON="old-python python3")

    assert done.stdout == "setup: ready\n"
