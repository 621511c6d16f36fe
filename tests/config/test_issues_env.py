"""Errors in an env file: one error at the key or the line."""

from __future__ import annotations

import pytest

from rolling_upgrade.errors import ConfigError, ConfigIssue
from tests.support.project import Project

ENV_FILE = "deploy/demo.env"
SERVICES = "deploy/services.yaml"

WRONG_VALUES = [
    ("APP_NAME", None),
    ("APP_NAME", "MemoryArk"),
    ("APP_NAME", "ark;reboot"),
    ("APP_NAME", "'../ark'"),
    ("APP_VERSION", None),
    ("ENVIRONMENT", "'a b'"),
    ("BACKEND_IMAGE", None),
    ("BACKEND_IMAGE", "'repo/backend;reboot'"),
    ("BACKEND_IMAGE", "'$(reboot)'"),
    ("BACKEND_IMAGE", "--privileged"),
    ("BACKEND_IMAGE", "Repo/Backend"),
    ("DOMAIN_NAME", None),
    ("DOMAIN_NAME", "'a.example.org; return 200'"),
    ("PROTOCOL", "gopher"),
    ("DATABASE_PATH", None),
    ("DATABASE_PATH", "data/ark.db"),
    ("DATABASE_PATH", "/ark.db"),
    ("DATABASE_PATH", "/srv/ark/"),
    ("DATABASE_PATH", "/srv/a:b/ark.db"),
    ("DATABASE_PATH", '"/srv/a\\nb/ark.db"'),
    ("UPLOADS_PATH", None),
    ("UPLOADS_PATH", "/srv/a,b"),
    ("UPLOADS_PATH", "/"),
    ("CONFIG_PATH", "'/srv/a b'"),
    ("DATABASE_BACKUP_PATH", "backups"),
    ("MAX_UPLOAD_SIZE", "1XB"),
    ("BACKEND_PORT", "web"),
    ("BACKEND_PORT", "45536"),
    ("BACKEND_PORT", "1023"),
    ("NGINX_PORT", "0"),
    ("HTTPS_PORT", "70000"),
    ("HEALTH_CHECK_INTERVAL", "0"),
    ("HEALTH_CHECK_TIMEOUT", "30 seconds"),
    ("HEALTH_CHECK_START_PERIOD", "1y"),
    ("HEALTH_CHECK_RETRIES", "0"),
    ("RESTART_POLICY", "sometimes"),
    ("BACKUP_RETENTION_DAYS", "forever"),
    ("AUTO_BACKUP_ENABLED", "daily"),
    ("BACKUP_SCHEDULE", "at night"),
    ("BACKEND_MEMORY_LIMIT", "lots"),
    ("BACKEND_MEMORY_LIMIT", "1M"),
    ("BACKEND_CPU_LIMIT", "half"),
    ("FRONTEND_CPU_LIMIT", "0"),
    ("NGINX_IMAGE", "'a b'"),
    ("NGINX_MEMORY_LIMIT", "big"),
    ("NGINX_CPU_LIMIT", "x"),
    ("MAINTENANCE_MODE", "2"),
    ("SLACK_WEBHOOK", "hooks.example.org"),
    ("WEBHOOK_URL", "file:///etc/passwd"),
    ("SMTP_HOST", "'mail;'"),
    ("SMTP_PORT", "smtp"),
    ("SMTP_FROM", "nobody"),
    ("SMTP_TO", "a@example.org;b@example.org"),
    ("SMTP_SECURITY", "ssl3"),
    ("NOTIFY_LANGUAGE", "klingon!"),
    ("NOTIFY_LANGUAGE", "fr"),
    ("NOTIFY_SLACK", "loud"),
    ("NOTIFY_MAIL", "none"),
    ("NOTIFY_WEBHOOK", "error"),
    ("NOTIFY_REPEAT", "10s"),
]


@pytest.mark.parametrize(("key", "value"), WRONG_VALUES)
def test_load_invalid_value_is_one_error_at_its_key(project: Project, key: str, value: str | None) -> None:
    project.env({key: value})

    issues = project.issues()

    places = {(issue.file, issue.path) for issue in issues}
    assert places == {(ENV_FILE, key)}
    assert len(issues) == len(places)
    assert all(issue.expected for issue in issues)


def test_load_invalid_app_version_used_as_a_tag_is_an_error(project: Project) -> None:
    project.env({"APP_VERSION": "2.0.1+build;reboot"})

    assert project.places() == [(ENV_FILE, "APP_VERSION")]


@pytest.mark.parametrize(
    ("line", "place", "found"),
    [
        ("NGINX_PORT=80\nNGINX_PORT=81", "line 11", "a duplicate NGINX_PORT"),
        ("NGINX_PORT", "line 10", "NGINX_PORT without ="),
        ("\n\n= 3", "line 12", "a line that is not a setting"),
        ("A-KEY=1", "line 10", "the key 'A-KEY'"),
        ('LOG_LEVEL="info', "line 10", "a line that is not a setting"),
    ],
)
def test_load_malformed_line_is_an_error_at_its_line(project: Project, line: str, place: str, found: str) -> None:
    project.env(extra=line)

    (issue,) = project.issues()

    assert (issue.file, issue.place, issue.found) == (ENV_FILE, place, found)


def test_load_container_value_with_a_nul_byte_is_an_error(project: Project) -> None:
    project.env({"JWT_SECRET_KEY": '"two\0parts"'})

    (issue,) = project.issues()

    assert (issue.file, issue.path) == (ENV_FILE, "JWT_SECRET_KEY")
    assert "without NUL bytes" in issue.expected
    assert "two" not in issue.found


@pytest.mark.parametrize("key", ["PATH", "LD_PRELOAD", "XDG_RUNTIME_DIR", "CONTAINERS_CONF"])
def test_load_multi_line_value_of_a_variable_that_podman_reads_is_an_error(project: Project, key: str) -> None:
    project.edit("deploy/services.yaml", "      - APP_NAME\n", f"      - APP_NAME\n      - {key}\n")
    project.env({key: '"two\nlines"'})

    (issue,) = project.issues()

    assert (issue.file, issue.path) == (ENV_FILE, key)
    assert "a single line" in issue.expected


def test_load_https_without_a_certificate_names_both_keys(project: Project) -> None:
    project.env({"PROTOCOL": "https"})

    assert project.places() == [(ENV_FILE, "SSL_CERT_PATH"), (ENV_FILE, "SSL_KEY_PATH")]


@pytest.mark.parametrize(
    ("changes", "key", "found"),
    [
        ({"FRONTEND_PORT": "8080"}, "FRONTEND_PORT", "port 8080, already used by BACKEND_PORT"),
        ({"BACKEND_PORT": "8088", "NGINX_PORT": "8088"}, "BACKEND_PORT", "port 8088, already used by NGINX_PORT"),
        ({"FRONTEND_PORT": "18080"}, "BACKEND_PORT", "port 18080, already used by FRONTEND_PORT"),
        (
            {"FRONTEND_PORT": "18081", "BACKEND_PORT": "8081"},
            "BACKEND_PORT",
            "port 18081, already used by FRONTEND_PORT",
        ),
        ({"NGINX_PORT": "28080"}, "BACKEND_PORT", "port 28080, already used by NGINX_PORT"),
    ],
)
def test_load_port_with_two_uses_is_an_error(project: Project, changes: dict[str, str], key: str, found: str) -> None:
    project.env(changes)

    issues = project.issues()

    assert (ENV_FILE, key, found) in {(issue.file, issue.path, issue.found) for issue in issues}


def test_load_https_port_already_in_use_is_an_error(project: Project) -> None:
    tls = {"PROTOCOL": "https", "SSL_CERT_PATH": "/etc/ssl/a.crt", "SSL_KEY_PATH": "/etc/ssl/a.key"}
    project.env({**tls, "HTTPS_PORT": "80"})

    assert project.places() == [(ENV_FILE, "HTTPS_PORT")]


def test_load_https_port_of_an_http_site_is_ignored(project: Project) -> None:
    project.env({"HTTPS_PORT": "80"})

    assert project.load().targets[0].application.tls is None


def test_load_unknown_key_with_strict_is_an_error_with_a_suggestion(project: Project) -> None:
    project.env({"BACKND_PORT": "8090"})

    assert project.issues(strict=True) == [
        ConfigIssue(ENV_FILE, "BACKND_PORT", "an unknown key", "a known key (did you mean BACKEND_PORT?)")
    ]


def test_load_service_without_port_and_default_is_an_error(project: Project) -> None:
    project.edit(SERVICES, "    default_port: 7001\n", "")

    assert project.places() == [(ENV_FILE, "FRONTEND_PORT")]


def test_load_error_with_a_long_value_shortens_and_escapes_it(project: Project) -> None:
    project.env({"DOMAIN_NAME": '"\\x1b[31m' + "a" * 500 + '"'})

    (issue,) = project.issues()

    assert len(issue.found) <= 80
    assert issue.found.isprintable()


def test_load_error_on_every_host_is_reported_once(project: Project) -> None:
    project.env({"BACKEND_PORT": "x"})

    error = project.refused()

    assert isinstance(error, ConfigError)
    assert len(error.issues) == 1


def test_env_file_that_is_the_root_directory_is_refused(project: Project) -> None:
    project.edit("hosts.yaml", "    hosts:", "    env_file: /\n    hosts:")

    (issue,) = project.issues()

    assert (issue.file, issue.found) == ("/", "an unreadable file (Is a directory)")
