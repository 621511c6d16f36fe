"""Keys that this program passes to services: their texts, who knows them, and warnings about their values."""

from __future__ import annotations

import pytest

from rolling_upgrade.config.settings import KEYS
from tests.support.project import Project

SERVICES_FILE = "deploy/services.yaml"


def services(project: Project, env: str) -> None:
    line = f"  - {{name: web, image: 'repo/web:v1', container_port: 80, env: [{env}]}}\n"
    project.write(SERVICES_FILE, f"services:\n{line}")


def env_file(project: Project, *lines: str) -> None:
    project.write("deploy/demo.env", "\n".join(["APP_NAME=shop", "DOMAIN_NAME=shop.example.org", *lines, ""]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("LOG_LEVEL", "app=trace,db=off"),
        ("REDIS_URL", "unix:///run/redis.sock"),
        ("ADMIN_EMAIL", "ops"),
        ("WORKER_PROCESSES", "cpu*2"),
        ("CACHE_TTL", "forever"),
        ("METRICS_PORT", "off"),
        ("LOG_FILE", "stdout"),
    ],
)
def test_values_of_services_are_plain_text(project: Project, key: str, value: str) -> None:
    services(project, key)
    env_file(project, f"{key}={value}")

    environment = project.load(strict=True)

    app = environment.targets[0].application
    assert app.services[0].env == ((key, value),)
    assert app.log_files == ()


@pytest.mark.parametrize("key", ["JWT_SECRET_KEY", "CLOUDFLARE_ACCESS_AUD", "MAX_CONCURRENT_UPLOADS", "LOG_LEVEL"])
def test_keys_of_an_application_are_known_by_its_services_alone(project: Project, key: str) -> None:
    services(project, "OTHER")
    env_file(project, f"{key}=x")

    assert key not in KEYS
    assert [(issue.file, issue.path) for issue in project.issues(strict=True)] == [("deploy/demo.env", key)]


def test_typo_of_a_key_of_a_service_is_detected(project: Project) -> None:
    services(project, "LOG_LEVEL")
    env_file(project, "LOG_LEVL=debug")

    assert project.load().warnings == (
        "deploy/demo.env:3: LOG_LEVL: unknown, without effect (did you mean LOG_LEVEL?)",
    )


def test_log_file_is_a_path_when_setup_rotates_it(project: Project) -> None:
    services(project, "LOG_FILE")
    env_file(project, "LOG_FILE=stdout")
    project.edit("hosts.yaml", "    hosts:\n", "    setup: {rotate_logs_days: 7}\n    hosts:\n")

    (issue,) = project.issues()
    assert (issue.place, "an absolute path of a file" in issue.expected) == ("line 3: LOG_FILE", True)

    env_file(project, "LOG_FILE=/var/log/shop/app.log")
    assert project.application().log_files == ("/var/log/shop/app.log",)


def test_key_of_notifications_that_a_service_gets_is_a_warning(project: Project) -> None:
    services(project, "SMTP_PASSWORD, SLACK_WEBHOOK, {MAIL_HOST: SMTP_HOST}, {SMTP_USER: WEB_SMTP_USER}")
    env_file(project, "SMTP_HOST=mail.example.org", "SMTP_PASSWORD=", "SLACK_WEBHOOK=https://hooks.example.org/x")
    with (project.root / "deploy/demo.env").open("a") as file:
        file.write("SMTP_FROM=a@example.org\nSMTP_TO=b@example.org\nWEB_SMTP_USER=x\n")

    assert project.load().warnings == (
        "deploy/demo.env:5: SLACK_WEBHOOK: configures notifications of rolling-upgrade, and the service web gets it "
        "too; for separate values, write `SLACK_WEBHOOK: WEB_SLACK_WEBHOOK` under `env`",
        "deploy/demo.env:3: SMTP_HOST: configures notifications of rolling-upgrade, and the service web gets it "
        "too; for separate values, write `MAIL_HOST: WEB_SMTP_HOST` under `env`",
    )


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("op://vault/item/field", "op://"),
        ("'op://vault/item/field'", "op://"),
        ("ENC[AES256_GCM,data:abc]", "ENC["),
        ("${OTHER}", "${…}"),
        ('"a-${OTHER}"', "${…}"),
        ("$(cat file)", "$(…)"),
        ("`cat file`", "a command in backticks"),
        (r'"pa\$word"', r"the \ before $"),
        ("'${OTHER}'", ""),
        ("'$(cat file) `x`'", ""),
        (r"pa\$word", ""),
        ("pa$word", ""),
        (r"'pa\$word'", ""),
        ("one`tick", ""),
    ],
)
def test_unresolved_reference_is_a_warning_with_its_line(project: Project, written: str, what: str) -> None:
    services(project, "VALUE")
    env_file(project, f"VALUE={written}")

    expected = (f"deploy/demo.env:3: VALUE: {what} is not replaced; the value is used as it is",)
    assert project.load().warnings == (expected if what else ())
