"""Settings of images: transfer, signatures, and the registry login."""

from __future__ import annotations

import pytest

from rolling_upgrade.config.issues import is_secret
from rolling_upgrade.engine import history
from rolling_upgrade.engine.model import Login, Transfer
from tests.support.project import Project

LOGIN = {"REGISTRY": "registry.example.org:5000", "REGISTRY_USERNAME": "robot", "REGISTRY_PASSWORD": "word"}


def test_load_registry_login_is_read(project: Project) -> None:
    project.env({**LOGIN, "REGISTRY_PASSWORD": "pas$word"})

    environment = project.load()

    assert environment.targets[0].application.login == Login("registry.example.org:5000", "robot", "pas$word")
    assert "pas$word" in environment.secrets
    assert "pas$word" not in repr(environment)


def test_load_registry_login_is_not_in_the_release_definition(project: Project) -> None:
    project.env({**LOGIN, "REGISTRY_PASSWORD": "pas$word"})

    kept = history.dump_definition(project.load().targets[0].application)

    assert "pas$word" not in kept
    assert "robot" not in kept


def test_load_without_registry_has_no_login(project: Project) -> None:
    assert project.load().targets[0].application.login is None


@pytest.mark.parametrize("missing", sorted(LOGIN))
def test_load_incomplete_registry_login_is_an_error_at_the_missing_key(project: Project, missing: str) -> None:
    project.env({key: "word" for key in LOGIN if key != missing})

    (issue,) = project.issues()

    assert issue.path == missing


@pytest.mark.parametrize("registry", ["https://registry.example.org", "registry/path", "--help", "a b", "host:port"])
def test_load_invalid_registry_is_an_error(project: Project, registry: str) -> None:
    project.env({"REGISTRY": f"'{registry}'", "REGISTRY_USERNAME": "robot", "REGISTRY_PASSWORD": "word"})

    assert {issue.path for issue in project.issues()} == {"REGISTRY"}


def test_registry_password_is_a_secret() -> None:
    assert is_secret("REGISTRY_PASSWORD")


@pytest.mark.parametrize(("declared", "found"), [("", "pull"), ("transfer: pull", "pull"), ("transfer: push", "push")])
def test_load_transfer_is_read(project: Project, declared: str, found: str) -> None:
    project.rollout(declared)

    assert project.load().rollout.transfer is Transfer(found)


def test_load_unknown_transfer_is_an_error(project: Project) -> None:
    project.rollout("transfer: carry")

    (issue,) = project.issues()

    assert (issue.path, issue.expected) == ("environments.demo.rollout.transfer", "pull or push")


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
)
def test_load_invalid_signing_key_is_an_error(project: Project, content: bytes | None) -> None:
    project.rollout("signed_by: release.pub")
    if content is not None:
        (project.root / "release.pub").write_bytes(content)

    (issue,) = project.issues()

    assert (issue.path, "cosign" in issue.expected) == ("environments.demo.rollout.signed_by", True)


def test_load_signing_key_is_read(project: Project) -> None:
    key = project.require_signatures()

    assert project.load().rollout.signed_by == key
