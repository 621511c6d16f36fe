"""The login and logout scripts: password handling, repeated logins, refusals."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Login
from rolling_upgrade.features.registry import workflow as registry
from tests.support.shell import HOSTILE, Programs, sh

LOGIN = Login("registry.test:5000", "robot", "pa'ss $word")

#: Stands in for `podman login`: reads the password from standard input and writes the file, or refuses.
PODMAN = """
shift
while [ $# -gt 1 ]; do case $1 in --username) user=$2; shift ;; --authfile) file=$2; shift ;; esac; shift; done
cat >"$here/password"
[ ! -e "$here/refuses" ] || { echo "Error: authenticating creds: invalid username/password" >&2; exit 125; }
echo '{"auths":{}}' >"$file"
"""


@pytest.fixture
def home(tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    programs.add("podman", PODMAN)
    return home


def run(programs: Programs, login: Login = LOGIN, *, always_ask: bool = False) -> tuple[int, str]:
    text = registry.login_script(login, always_ask=always_ask).text.replace("PATH=/", "OTHER=/")
    done = sh(text, path=programs.path)
    return done.returncode, done.stdout


def stored(home: Path, login: Login = LOGIN) -> Path:
    """Write the login file as Podman does and return its path."""
    path = home / ".config" / "containers" / "auth.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    word = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
    path.write_text(json.dumps({"auths": {login.registry: {"auth": word}}}))
    return path


@pytest.mark.parametrize("password", [word for word in HOSTILE if word and "\n" not in word])
def test_login_passes_the_password_only_on_standard_input(
    programs: Programs, home: Path, tmp_path: Path, password: str
) -> None:
    login = Login("registry.test:5000", "robot", password)

    assert run(programs, login)[0] == 0

    assert (tmp_path / "password").read_text() == password
    assert not [word for call in programs.calls() for word in call if password in word]
    assert (home / ".config" / "containers" / "auth.json").stat().st_mode & 0o777 == 0o600


def test_login_script_masks_the_password() -> None:
    script = registry.login_script(LOGIN, always_ask=False)

    assert "pass" not in script.masked.replace("--password-stdin", "")
    assert base64.b64encode(b"robot:pa'ss $word").decode() not in script.masked


def test_existing_login_contacts_no_registry(programs: Programs, home: Path) -> None:
    stored(home)

    assert run(programs) == (0, "kept\n")
    assert programs.calls("podman") == []


@pytest.mark.parametrize(
    "other",
    [Login("registry.test:5000", "robot", "old"), Login("other.test", "robot", "pa'ss $word")],
    ids=["password", "registry"],
)
def test_changed_login_contacts_the_registry(programs: Programs, home: Path, other: Login) -> None:
    stored(home, other)

    assert run(programs) == (0, "")
    assert len(programs.calls("podman")) == 1


def test_login_with_always_ask_contacts_the_registry(programs: Programs, home: Path) -> None:
    stored(home)

    assert run(programs, always_ask=True) == (0, "")
    assert len(programs.calls("podman")) == 1


def test_refused_login_prints_the_reason_and_writes_no_file(programs: Programs, home: Path, tmp_path: Path) -> None:
    (tmp_path / "refuses").touch()

    assert run(programs) == (registry.REFUSED_STATUS, "Error: authenticating creds: invalid username/password\n")
    assert not (home / ".config" / "containers" / "auth.json").exists()


def test_logout_without_a_login_succeeds(programs: Programs, home: Path) -> None:
    text = registry.logout_script("registry.test:5000").text.replace("PATH=/", "OTHER=/")

    assert sh(text, path=programs.path).returncode == 0
    assert programs.calls("podman") == []


def test_logout_deletes_the_login(programs: Programs, home: Path) -> None:
    path = stored(home)
    text = registry.logout_script("registry.test:5000").text.replace("PATH=/", "OTHER=/")

    assert sh(text, path=programs.path).returncode == 0
    assert programs.calls("podman") == [["podman", "logout", "registry.test:5000", "--authfile", str(path)]]
