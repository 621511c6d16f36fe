"""From the notification keys to channels: what is read, and what is refused because it could never work."""

from __future__ import annotations

import pytest

from fabfile.model import Channels, Hook, Mail, Security, Severity
from tests.config.project import Project

ENV_FILE = "deploy/demo.env"
MAIL = {"SMTP_HOST": "mail.example.org", "SMTP_FROM": "ark@example.org", "SMTP_TO": "ann@example.org"}
LOGIN = {"SMTP_USER": "ark", "SMTP_PASSWORD": "open-sesame"}
SLACK = "https://hooks.example.org/services/T0123456/B0123456/q7Zk1m9pX2"


def test_channels_without_a_key_are_none(project: Project) -> None:
    assert project.application().channels == Channels()


def test_channels_all_keys_are_read(project: Project) -> None:
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
        ({**MAIL, "SMTP_FROM": None}, "SMTP_FROM", "only together with"),
        ({**MAIL, "SMTP_TO": ""}, "SMTP_TO", "only together with"),
        ({**MAIL, **LOGIN, "SMTP_USER": None}, "SMTP_USER", "SMTP_PASSWORD makes a login"),
        ({**MAIL, **LOGIN, "SMTP_PASSWORD": None}, "SMTP_PASSWORD", "SMTP_USER makes a login"),
        ({**MAIL, **LOGIN, "SMTP_PASSWORD": "pässword"}, "SMTP_PASSWORD", "ASCII"),
        ({**MAIL, **LOGIN, "SMTP_SECURITY": "none"}, "SMTP_SECURITY", "starttls or tls"),
        ({**MAIL, "SMTP_PORT": "465"}, "SMTP_SECURITY", "first byte on port 465"),
    ],
)
def test_channels_mail_that_cannot_work_is_one_mistake(
    project: Project, changes: dict[str, str | None], key: str, expected: str
) -> None:
    project.env(changes)

    (mistake,) = project.mistakes()

    assert (mistake.file, mistake.path) == (ENV_FILE, key)
    assert expected in mistake.expected
    assert "sesame" not in str(mistake)


def test_channels_mail_without_a_server_is_a_warning(project: Project) -> None:
    project.env({"SMTP_TO": "ann@example.org"})

    environment = project.load(strict=True)

    assert environment.targets[0].application.channels.mail is None
    assert environment.warnings == (
        "deploy/demo.env: no mail is sent, because SMTP_HOST is empty and other SMTP_ keys are not",
    )


@pytest.mark.parametrize("key", ["SLACK_WEBHOOK", "SMTP_TO", "NOTIFY_LANGUAGE", "WEBHOOK_URL"])
def test_channels_of_one_host_alone_are_a_mistake(project: Project, key: str) -> None:
    project.edit("hosts.yaml", "192.0.2.12", f"192.0.2.12, env: {{{key}: x@example.org}}")

    assert f"one {key} for all hosts" in {mistake.expected for mistake in project.mistakes()}


def test_channels_secrets_are_in_no_repr_and_known_in_part(project: Project) -> None:
    project.env(
        {**MAIL, **LOGIN, "SLACK_WEBHOOK": SLACK, "WEBHOOK_URL": "https://u:pass-w0rd@example.org/notifications"}
    )

    environment = project.load()

    assert {SLACK, "q7Zk1m9pX2", "T0123456", "open-sesame", "pass-w0rd"} <= set(environment.secrets)
    assert not {"services", "notifications"} & set(environment.secrets)
    assert not any(secret in repr(environment.targets[0].application.channels) for secret in environment.secrets)
