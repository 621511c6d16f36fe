"""`inv registry.login` and `registry.logout`: choice of the login, source of the password, results, host scripts."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Environment, Login, Target
from rolling_upgrade.errors import ConfigError, ExitCode, PreflightError
from rolling_upgrade.features.registry import workflow as registry
from tests.support.local_fleet import Machines
from tests.support.project import Project
from tests.support.sample import application
from tests.support.shell import HOSTILE, Programs, sh

KNOWN = Login("registry.test", "robot", "from-the-file")


def environment(login: Login | None = KNOWN) -> Environment:
    return Environment("production", (Target("web1", "web1", "deploy", application(login=login)),))


def set_stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_login_without_options_is_the_login_of_the_env_file(monkeypatch: pytest.MonkeyPatch) -> None:
    set_stdin(monkeypatch, "")

    assert registry._login(environment(), "", "") == KNOWN


@pytest.mark.parametrize(("name", "user"), [("other.test", ""), ("", "ann"), ("other.test", "ann")])
def test_login_with_other_name_reads_its_password_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, name: str, user: str
) -> None:
    set_stdin(monkeypatch, "pass word\r\nmore")

    login = registry._login(environment(), name, user)

    assert login == Login(name or "registry.test", user or "robot", "pass word")


@pytest.mark.parametrize(("name", "user"), [("", ""), ("registry.test", ""), ("", "ann")])
def test_incomplete_login_is_refused(name: str, user: str) -> None:
    with pytest.raises(ConfigError, match="a registry and a username"):
        registry._login(environment(None), name, user)


@pytest.mark.parametrize("text", ["", "\n", "a\x1b[0m\n"])
def test_login_without_a_password_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    set_stdin(monkeypatch, text)

    with pytest.raises(ConfigError, match="the password is missing"):
        registry._login(environment(None), "registry.test", "ann")


#: `podman login` reads the password and writes the file; `refuse` in the home directory refuses it.
PODMAN = """\
case $1 in
login)
  cat > "$HOME/password"
  if [ -e "$HOME/refuse" ]; then echo "unauthorized" >&2; exit 1; fi
  echo "{}" > "$HOME/.config/containers/auth.json" ;;
esac"""


@pytest.fixture
def with_login(project: Project) -> Project:
    """A project with a login in its env file."""
    project.env({"REGISTRY": "registry.test", "REGISTRY_USERNAME": "robot", "REGISTRY_PASSWORD": "pass-word-1"})
    return project


def test_login_with_env_file_logs_every_host_in(
    with_login: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("podman", PODMAN)

    assert registry.login("demo", root=with_login.root) is ExitCode.DONE

    captured = capsys.readouterr().out
    assert captured == "".join(f"{host}: logged in to registry.test as robot\n" for host in ("web1", "web2"))
    assert [(machines.root(host) / "home/password").read_text() for host in ("web1", "web2")] == ["pass-word-1"] * 2
    assert all("pass-word-1" not in word for call in programs.calls() for word in call)


def test_refused_login_names_the_host_without_the_password(
    with_login: Project, machines: Machines, programs: Programs
) -> None:
    programs.add("podman", PODMAN)
    (machines.root("web2") / "home/refuse").touch()

    with pytest.raises(PreflightError, match=r"web2: registry\.test refused robot: unauthorized") as caught:
        registry.login("demo", root=with_login.root)

    assert "web1" not in str(caught.value)
    assert "pass-word-1" not in str(caught.value)


def test_logout_lists_every_host_and_fails_if_one_is_unreachable(
    with_login: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("podman", PODMAN)

    assert registry.logout("demo", root=with_login.root) is ExitCode.DONE
    assert capsys.readouterr().out.count("no login to registry.test") == 2

    machines.unreachable.add("web2")
    assert registry.logout("demo", root=with_login.root) is ExitCode.FAILED


LOGIN = Login("registry.test:5000", "robot", "pa'ss $word")

#: Stands in for `podman login`: reads the password from standard input and writes the file, or refuses.
PODMAN_LOGIN = """
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
    programs.add("podman", PODMAN_LOGIN)
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
