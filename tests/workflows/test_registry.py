"""Which login is meant, and where its password comes from."""

from __future__ import annotations

import io
import sys

import pytest

from fabfile.errors import ConfigError
from fabfile.model import Environment, Login, Target
from fabfile.workflows import registry
from tests.commands.sample import application

KNOWN = Login("registry.test", "robot", "from-the-file")


def environment(login: Login | None = KNOWN) -> Environment:
    return Environment("production", (Target("web1", "web1", "deploy", application(login=login)),))


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_asked_nothing_named_is_the_env_files(monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "")

    assert registry._asked(environment(), "", "") == KNOWN


@pytest.mark.parametrize(("name", "user"), [("other.test", ""), ("", "ann"), ("other.test", "ann")])
def test_asked_another_login_takes_its_password_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, name: str, user: str
) -> None:
    typed(monkeypatch, "pass word\r\nmore")

    found = registry._asked(environment(), name, user)

    assert found == Login(name or "registry.test", user or "robot", "pass word")


@pytest.mark.parametrize(("name", "user"), [("", ""), ("registry.test", ""), ("", "ann")])
def test_asked_half_a_login_is_refused(name: str, user: str) -> None:
    with pytest.raises(ConfigError, match="a registry and a name"):
        registry._asked(environment(None), name, user)


@pytest.mark.parametrize("text", ["", "\n", "a\x1b[0m\n"])
def test_asked_without_a_password_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    typed(monkeypatch, text)

    with pytest.raises(ConfigError, match="no password was given"):
        registry._asked(environment(None), "registry.test", "ann")
