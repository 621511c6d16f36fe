"""Fixtures and settings of all tests."""

from __future__ import annotations

import gc
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from tests.support.health_site import Site
from tests.support.local_fleet import Machines
from tests.support.pgp import Pgp
from tests.support.project import Project
from tests.support.shell import Programs, Signal
from tests.support.simulated_fleet import SimulatedFleet
from tests.support.sshd import Sshd
from tests.support.team import Team

# Tests run in parallel on small machines, so there are no deadlines. Examples of earlier runs are not reused.
settings.register_profile("project", deadline=None, database=None, print_blob=True)
settings.load_profile("project")

TESTS = Path(__file__).parent
#: Files that take minutes each. They run first, so that all workers finish at about the same time.
LONG = (TESTS / "deploy", TESTS / "lab", TESTS / "injection", TESTS / "test_generated_scripts.py")
#: Slow files with independent tests, which are distributed over all workers.
SPREAD = (
    "tests/ci/test_job.py",
    "tests/engine/test_sqlite.py",
    "tests/config/test_files.py",
    "tests/hostile/test_backups.py",
    "tests/hostile/test_floods.py",
    "tests/injection/test_command_line.py",
    "tests/injection/test_configuration.py",
    "tests/test_generated_scripts.py",
)


class ByFile(LoadFileScheduling):  # type: ignore[misc]  # it has no types
    """Runs the tests of a file in one worker, except for the files in SPREAD."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return nodeid if file in SPREAD else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile | None:
    """Use ByFile for `--dist loadfile`."""
    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not any(item.path.is_relative_to(long) for long in LONG))


def pytest_collection_finish() -> None:
    """Exempt all modules and collected tests from garbage collection: they live until the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """An empty directory for stub programs at the front of PATH."""
    return Programs(tmp_path / "bin")


@pytest.fixture
def site(tmp_path: Path, programs: Programs) -> Site:
    """The directories and servers of an application for health checks."""
    return Site(tmp_path, programs)


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Show the times of day in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A valid project, and a home directory without a known_hosts file."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "project")


@pytest.fixture
def machines(tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Machines:
    """Fake hosts with directories on this machine instead of SSH connections."""
    return Machines(tmp_path / "machines", programs, monkeypatch)


@pytest.fixture
def fleet(project: Project, monkeypatch: pytest.MonkeyPatch) -> SimulatedFleet:
    """Two hosts, web1 and web2, that run an earlier release and answer scripts without running them."""
    return SimulatedFleet(project, monkeypatch)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An SSH server for this process."""
    server = Sshd.start(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture
def pgp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pgp]:
    """A gpg keyring with one key, which this process uses too. Its agent is killed after the test."""
    gpgconf = shutil.which("gpgconf")
    assert gpgconf
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    keyring = Pgp(home)
    keyring.key("Ann <ann@example.org>")
    try:
        yield keyring
    finally:
        for directory in keyring.homes:
            subprocess.run([gpgconf, "--homedir", str(directory), "--kill", "all"], check=True, timeout=30)


#: Variables of the user's environment that must not affect the tests.
USER_VARIABLES = (
    "ROLLING_AGE_KEY",
    "ROLLING_AGE_KEY_FILE",
    "ANSIBLE_VAULT_PASSWORD_FILE",
    "VISUAL",
    "EDITOR",
    "XDG_RUNTIME_DIR",
)


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    """A project with a plaintext env file, and a home directory with ann's key."""
    for name in USER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Team(tmp_path)


@pytest.fixture
def began(tmp_path: Path) -> Iterator[Signal]:
    signal = Signal(tmp_path / "began")
    yield signal
    signal.close()


@pytest.fixture
def may_end(tmp_path: Path) -> Iterator[Signal]:
    signal = Signal(tmp_path / "may-end")
    yield signal
    signal.close()
