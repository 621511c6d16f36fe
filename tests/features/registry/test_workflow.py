"""`inv registry.login` and `registry.logout`: choice of the login, source of the password, results per host."""

from __future__ import annotations

import io
import sys

import pytest

from rolling_upgrade.engine.model import Environment, Login, Target
from rolling_upgrade.errors import ConfigError, ExitCode, PreflightError
from rolling_upgrade.features.registry import workflow as registry
from tests.support.local_fleet import Machines
from tests.support.project import Project
from tests.support.sample import application
from tests.support.shell import Programs

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
