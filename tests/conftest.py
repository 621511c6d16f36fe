"""What holds for every test."""

from __future__ import annotations

import shutil
import subprocess
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
from tests.support.shell import Programs
from tests.support.sshd import Sshd
from tests.support.team import Team

# Tests run beside others on small machines, so time says nothing; what an earlier run found is not kept.
settings.register_profile("project", deadline=None, database=None, print_blob=True)
settings.load_profile("project")

TESTS = Path(__file__).parent
#: Files that take minutes each. They come first, so that the workers end together.
LONG = (TESTS / "deploy", TESTS / "lab", TESTS / "injection", TESTS / "test_generated_scripts.py")
#: Files whose tests share nothing, and take minutes together: each test goes to whichever worker is free.
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
    """The tests of a file together, in one worker; those of the files above apart."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return nodeid if file in SPREAD else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile | None:
    """Take ours for `--dist loadfile`."""
    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not any(item.path.is_relative_to(long) for long in LONG))


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """An empty directory of stand-ins for programs, that comes first on PATH."""
    return Programs(tmp_path / "bin")


@pytest.fixture
def site(tmp_path: Path, programs: Programs) -> Site:
    """An application's directories, as scripts find them on a host."""
    return Site(tmp_path, programs)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that loads, and a home directory without a known_hosts file."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "project")


@pytest.fixture
def machines(tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Machines:
    """Hosts of every fleet that are directories on this machine."""
    return Machines(tmp_path / "machines", programs, monkeypatch)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An SSH server of this process."""
    server = Sshd.start(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture
def pgp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pgp]:
    """A gpg keyring with one key, which this process uses too; its agent ends with the test."""
    gpgconf = shutil.which("gpgconf")
    assert gpgconf
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    made = Pgp(home)
    made.key("Ann <ann@example.org>")
    try:
        yield made
    finally:
        for one in made.homes:
            subprocess.run([gpgconf, "--homedir", str(one), "--kill", "all"], check=True, timeout=30)


#: Variables of the person who runs the tests: none of them may decide here.
OWN = (
    "ROLLING_AGE_KEY",
    "ROLLING_AGE_KEY_FILE",
    "ANSIBLE_VAULT_PASSWORD_FILE",
    "VISUAL",
    "EDITOR",
    "XDG_RUNTIME_DIR",
)


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    """A project with a plain env file, in a home with ann's key."""
    for name in OWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Team(tmp_path)
