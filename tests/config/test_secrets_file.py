"""Plaintext env files that Git tracks, and placeholders in place of secrets."""

from __future__ import annotations

import pytest

from rolling_upgrade.config.issues import Issues
from rolling_upgrade.config.locate import locate
from tests.conftest import team
from tests.support.team import Team

__all__ = ["team"]


def test_load_tracked_plaintext_is_refused_until_untracked(team: Team) -> None:
    team.git("add", "--force", "deploy/demo.env")

    (issue,) = team.project.issues()

    assert issue.found == "plaintext secrets in a file that Git tracks"
    assert "rolling-upgrade secrets.encrypt --env demo" in issue.expected
    team.git("rm", "--quiet", "--cached", "deploy/demo.env")
    assert team.project.load().name == "demo"


def test_load_tracked_plaintext_in_a_git_hook_is_refused(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    team.git("add", "--force", "deploy/demo.env")
    monkeypatch.setenv("GIT_DIR", ".git")

    assert "Git tracks" in str(team.project.refused())


def test_load_tracked_example_and_untracked_file_are_accepted(team: Team) -> None:
    team.project.write("deploy/demo.env.example", team.env_file.read_text())
    team.git("add", "deploy/demo.env.example")

    assert team.project.load().name == "demo"


@pytest.mark.parametrize("broken", ["no git", "index"])
def test_load_plaintext_without_an_answer_of_git_is_a_warning(
    team: Team, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    team.git("add", "--force", "deploy/demo.env")
    if broken == "index":
        (team.root / ".git" / "index").write_bytes(b"junk")
    else:
        monkeypatch.setenv("PATH", str(team.folder))

    assert any("git cannot tell" in warning for warning in team.project.load().warnings)


@pytest.mark.parametrize(
    "value",
    [
        "your-super-secret-jwt-key",
        "change-me-to-a-long-random-text",
        "changeme",
        "CHANGE_ME",
        "example-secret",
        "replace-with-your-key",
        "passwd",
        "<secret>",
        "xxxxxxxx",
        "todo",
    ],
)
def test_load_placeholder_in_production_is_an_error_at_its_line(team: Team, value: str) -> None:
    team.project.env({"ENVIRONMENT": "production", "JWT_SECRET_KEY": value})

    (issue,) = team.project.issues()

    assert (issue.file, issue.place) == ("deploy/demo.env", "line 9: JWT_SECRET_KEY")
    assert value not in str(issue)


@pytest.mark.parametrize("key", ["SLACK_WEBHOOK", "DATABASE_URL", "REDIS_URL"])
def test_load_placeholder_in_a_url_is_an_error_in_production(team: Team, key: str) -> None:
    value = {
        "SLACK_WEBHOOK": "https://hooks.slack.com/services/YOUR/WEBHOOK/URL",
        "DATABASE_URL": "postgresql://app:changeme@db/app",
        "REDIS_URL": "redis://:change-me@cache:6379",
    }[key]
    team.project.env({"ENVIRONMENT": "production", key: value})

    assert [issue.place for issue in team.project.issues()] == [f"line 10: {key}"]


def test_load_placeholder_in_an_override_is_an_error_at_its_location(team: Team) -> None:
    team.project.env({"ENVIRONMENT": "production"})
    team.project.edit("hosts.yaml", "groups: [canary]", "groups: [canary], env: {JWT_SECRET_KEY: changeme}")

    (issue,) = team.project.issues()

    assert (issue.file, issue.path) == ("hosts.yaml", "environments.demo.hosts.web1.env.JWT_SECRET_KEY")


def test_load_placeholder_outside_production_and_real_secrets_are_accepted(team: Team) -> None:
    team.project.env({"JWT_SECRET_KEY": "changeme"})
    assert "placeholder" in team.project.load().warnings[0]
    good = {"JWT_SECRET_KEY": "q8Yourexample+secret/tokenA==", "WEBHOOK_URL": "https://ci.corp/sample-app/test/x"}
    team.project.env({"ENVIRONMENT": "production", **good})
    assert team.project.load().warnings == ()


def test_located_files_are_relative_to_the_inventory(team: Team) -> None:
    team.project.edit("hosts.yaml", "    hosts:\n", "    recipients_file: people.txt\n    hosts:\n")

    found = locate("demo", team.root, Issues(team.root))

    assert found.recipients_file == team.root / "people.txt"
