"""Notification keys become channels; settings that cannot work are errors."""

from __future__ import annotations

import pytest

from rolling_upgrade.engine.model import Channels, Hook, Mail, Security, Severity
from rolling_upgrade.errors import ConfigError
from tests.support.project import Project

ENV_FILE = "deploy/demo.env"
MAIL = {"SMTP_HOST": "mail.example.org", "SMTP_FROM": "ark@example.org", "SMTP_TO": "ann@example.org"}
LOGIN = {"SMTP_USER": "ark", "SMTP_PASSWORD": "open-sesame"}
SLACK = "https://hooks.example.org/services/T0123456/B0123456/q7Zk1m9pX2"


def test_channels_without_a_key_are_none(project: Project) -> None:
    assert project.application().channels == Channels()


def test_channels_keys_are_read(project: Project) -> None:
    project.env(
        {
            **MAIL,
            **LOGIN,
            "SMTP_TO": "'Ann <ann@example.org> , bob@example.org'",
            "SMTP_PORT": "465",
            "SMTP_SECURITY": "tls",
            "SLACK_WEBHOOK": SLACK,
            "WEBHOOK_URL": "http://192.0.2.9:8000/hook",
            "NOTIFY_LANGUAGE": "zh-tw",
            "NOTIFY_SLACK": "warning",
            "NOTIFY_MAIL": "critical",
            "NOTIFY_WEBHOOK": "off",
            "NOTIFY_REPEAT": "1h",
        }
    )

    assert project.application().channels == Channels(
        slack=Hook(SLACK, Severity.WARNING),
        mail=Mail(
            "mail.example.org",
            "ark@example.org",
            ("Ann <ann@example.org>", "bob@example.org"),
            465,
            "ark",
            "open-sesame",
            Security.TLS,
            Severity.CRITICAL,
        ),
        webhook=Hook("http://192.0.2.9:8000/hook", None),
        language="zh-TW",
        repeat_seconds=3600,
    )


@pytest.mark.parametrize(
    ("changes", "key", "expected"),
    [
        ({**MAIL, "SMTP_FROM": None}, "SMTP_FROM", "because SMTP_HOST is set"),
        ({**MAIL, "SMTP_TO": ""}, "SMTP_TO", "because SMTP_HOST is set"),
        ({**MAIL, **LOGIN, "SMTP_USER": None}, "SMTP_USER", "SMTP_PASSWORD is set"),
        ({**MAIL, **LOGIN, "SMTP_PASSWORD": None}, "SMTP_PASSWORD", "SMTP_USER is set"),
        ({**MAIL, **LOGIN, "SMTP_PASSWORD": "pässword"}, "SMTP_PASSWORD", "ASCII"),
        ({**MAIL, **LOGIN, "SMTP_SECURITY": "none"}, "SMTP_SECURITY", "starttls or tls"),
        ({**MAIL, "SMTP_PORT": "465"}, "SMTP_SECURITY", "TLS there from the first byte"),
    ],
)
def test_channels_invalid_mail_settings_are_one_error(
    project: Project, changes: dict[str, str | None], key: str, expected: str
) -> None:
    project.env(changes)

    (issue,) = project.issues()

    assert (issue.file, issue.path) == (ENV_FILE, key)
    assert expected in issue.expected
    assert "sesame" not in str(issue)


def test_channels_mail_without_a_server_is_a_warning(project: Project) -> None:
    project.env({"SMTP_TO": "ann@example.org"})

    environment = project.load(strict=True)

    assert environment.targets[0].application.channels.mail is None
    assert environment.warnings == (
        "deploy/demo.env: no mail is sent, because SMTP_HOST is empty although other SMTP_ keys are set",
    )


@pytest.mark.parametrize("key", ["SLACK_WEBHOOK", "SMTP_TO", "NOTIFY_LANGUAGE", "WEBHOOK_URL"])
def test_channels_override_on_a_host_is_an_error(project: Project, key: str) -> None:
    project.edit("hosts.yaml", "192.0.2.12", f"192.0.2.12, env: {{{key}: x@example.org}}")

    assert f"the same {key} on all hosts" in {issue.expected for issue in project.issues()}


def test_channels_secrets_are_masked_and_not_in_repr(project: Project) -> None:
    project.env(
        {**MAIL, **LOGIN, "SLACK_WEBHOOK": SLACK, "WEBHOOK_URL": "https://u:pass-w0rd@example.org/notifications"}
    )

    environment = project.load()

    assert {SLACK, "q7Zk1m9pX2", "T0123456", "open-sesame", "pass-w0rd"} <= set(environment.secrets)
    assert not {"services", "notifications"} & set(environment.secrets)
    assert not any(secret in repr(environment.targets[0].application.channels) for secret in environment.secrets)


@pytest.mark.parametrize("key", ["SLACK_WEBHOOK", "WEBHOOK_URL"])
@pytest.mark.parametrize(
    "url", ["http://hooks.example.org/T0/q7Zk1m9pX2", "HTTP://192.0.2.9:8000/hook", "http://127.0.0.1.example.org/"]
)
def test_channels_url_without_tls_is_a_warning_and_an_error_with_strict(project: Project, key: str, url: str) -> None:
    project.env({key: url})

    assert [key in warning for warning in project.load().warnings] == [True]
    with pytest.raises(ConfigError) as raised:
        project.load(strict=True)
    assert [(issue.path, url in str(issue)) for issue in raised.value.issues] == [(key, False)]


@pytest.mark.parametrize("url", [SLACK, "http://127.0.0.1:8000/x", "http://[::1]/x", "http://localhost/x"])
def test_channels_url_with_tls_or_on_loopback_is_accepted(project: Project, url: str) -> None:
    project.env({"SLACK_WEBHOOK": url})

    assert project.load(strict=True).warnings == ()


@pytest.mark.parametrize("key", ["SLACK_WEBHOOK", "WEBHOOK_URL"])
@pytest.mark.parametrize("url", ["//[", "http://[::1", "http://a]b/", "https://a:b:c/", "http://example.org:99999/"])
def test_channels_malformed_url_is_an_error_of_its_key(project: Project, key: str, url: str) -> None:
    project.env({key: url})

    with pytest.raises(ConfigError, match=key):
        project.load()
