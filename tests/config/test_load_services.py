"""The services that `load` returns: images, mounts, environment, gates."""

from __future__ import annotations

import pytest

from rolling_upgrade.engine.model import Gate, Image, Mount, Start
from tests.support.project import Project


@pytest.mark.parametrize("tag", ["", "v3.0.0"])
def test_load_container_gets_the_selected_tag_as_app_version(project: Project, tag: str) -> None:
    env = dict(project.application(tag=tag).services[0].env)

    assert env["APP_VERSION"] == (tag or "2.0.1")


DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("image", "version", "tag", "expected"),
    [
        ("repo/backend", "2.0.1", "", Image("repo/backend", "2.0.1")),
        ("repo/backend:v1", "2.0.1", "", Image("repo/backend", "v1")),
        ("repo/backend:v1", "2.0.1", "v3", Image("repo/backend", "v3")),
        ("repo/backend:v1", None, "", Image("repo/backend", "v1")),
        (f"repo/backend@{DIGEST}", "2.0.1", "", Image("repo/backend", "", DIGEST)),
        (f"repo/backend:v1@{DIGEST}", "2.0.1", "", Image("repo/backend", "v1", DIGEST)),
        (f"repo/backend:v1@{DIGEST}", "2.0.1", "v3", Image("repo/backend", "v3")),
    ],
)
def test_load_image_tag_follows_the_precedence(
    project: Project, image: str, version: str | None, tag: str, expected: Image
) -> None:
    project.env({"BACKEND_IMAGE": image, "APP_VERSION": version, "FRONTEND_IMAGE": "repo/frontend:v1"})

    assert project.application(tag=tag).services[0].image == expected


def test_load_database_file_mounts_its_directory(project: Project) -> None:
    project.env({"DATABASE_PATH": "/srv/ark/data/other.db", "CONFIG_PATH": "/srv/ark/config"})

    backend = project.application().services[0]

    assert backend.mounts == (
        Mount("/srv/ark/data", "/app/data"),
        Mount("/srv/memoryark/uploads", "/app/uploads"),
        Mount("/srv/ark/config", "/app/config", read_only=True),
    )


def test_load_mount_keys_become_paths_inside_the_container(project: Project) -> None:
    project.env({"DATABASE_PATH": "/srv/ark/data/other.db", "CONFIG_PATH": "/srv/ark/config"})

    env = dict(project.application().services[0].env)

    assert env["DATABASE_PATH"] == "/app/data/other.db"
    assert (env["UPLOADS_PATH"], env["CONFIG_PATH"]) == ("/app/uploads", "/app/config")


def test_load_secret_is_passed_only_to_the_backend(project: Project) -> None:
    backend, frontend = project.application().services

    assert ("JWT_SECRET_KEY", "correct-horse-battery") in backend.env
    assert "correct-horse-battery" not in dict(frontend.env).values()


@pytest.mark.parametrize(
    "value",
    [
        "$HOME ${APP_NAME} $$",
        "`reboot` $(reboot) ; | & > <",
        "päss wörd 密碼 🔑",
        "a\tb",
        "{{ x }} %s %(y)s",
        "#x",
    ],
)
def test_load_container_value_is_passed_unchanged(project: Project, value: str) -> None:
    project.env({"JWT_SECRET_KEY": f"'{value}'"})

    assert dict(project.application().services[0].env)["JWT_SECRET_KEY"] == value


def test_load_health_check_keys_set_the_gate(project: Project) -> None:
    project.env({"HEALTH_CHECK_TIMEOUT": "2s", "HEALTH_CHECK_START_PERIOD": "500ms", "HEALTH_CHECK_RETRIES": "5"})

    assert project.application().services[0].gate == Gate(
        path="/api/health",
        passes=3,
        interval_seconds=1.0,
        timeout_seconds=2.0,
        start_period_seconds=0.5,
        retries=5,
        deadline_seconds=120.0,
    )


def test_load_health_check_may_replace_host_and_scheme_and_add_headers(project: Project) -> None:
    health = """health:
      path: /up
      host: ${DOMAIN_NAME}:8443
      scheme: https
      headers: {Authorization: "Bearer ${PROBE_TOKEN}", X-Team: PROBE_TEAM}"""
    project.edit("deploy/services.yaml", "health: /api/health", health)
    project.env({"PROBE_TOKEN": "hush-hush", "PROBE_TEAM": "red"})

    environment = project.load(strict=True)

    gate = environment.targets[0].application.services[0].gate
    assert (gate.path, gate.host, gate.scheme) == ("/up", "files.example.org:8443", "https")
    assert gate.headers == (("Authorization", "Bearer hush-hush"), ("X-Team", "red"))
    assert "hush-hush" in environment.secrets
    assert "hush" not in repr(gate)


@pytest.mark.parametrize(
    ("health", "path", "expected"),
    [
        ("{path: up}", "services[0].health.path", "a path such as /health"),
        ("{host: 'shop.test/x'}", "services[0].health.host", "a domain name or an IPv4 address"),
        ("{host: 'shop.test:0'}", "services[0].health.host", "a domain name or an IPv4 address"),
        ("{host: 'shop.test:1:2'}", "services[0].health.host", "a domain name or an IPv4 address"),
        ("{scheme: ftp}", "services[0].health.scheme", "http or https"),
        ("{headers: {Host: a.test}}", "services[0].health.headers.Host", "(`host`)"),
        ("{headers: {x-forwarded-proto: https}}", "services[0].health.headers.x-forwarded-proto", "(`scheme`)"),
        ("{headers: {'X Y': a}}", "services[0].health.headers.X Y", "the name of a header"),
        ('{headers: {X-Y: "a\\nb"}}', "services[0].health.headers.X-Y", "printable ASCII"),
        ("{headers: {X-Y: ''}}", "services[0].health.headers.X-Y", "printable ASCII"),
        ("{headers: {X-Y: NOT_SET}}", "NOT_SET", "printable ASCII"),
        ("{port: 1}", "services[0].health.port", "a known key"),
        ("[/up]", "services[0].health", "a mapping"),
    ],
)
def test_load_invalid_health_check_is_an_error_at_its_place(
    project: Project, health: str, path: str, expected: str
) -> None:
    project.edit("deploy/services.yaml", "health: /api/health", f"health: {health}")

    assert [issue.path for issue in project.issues() if expected in issue.expected] == [path]


@pytest.mark.parametrize(
    ("start", "timeout", "deadline"),
    [("60s", "30s", 60 + 6 * 31.0), ("10s", "5s", 120.0), ("600s", "300s", 900.0)],
)
def test_load_gate_deadline_is_extended_up_to_the_maximum(
    project: Project, start: str, timeout: str, deadline: float
) -> None:
    project.env({"HEALTH_CHECK_START_PERIOD": start, "HEALTH_CHECK_TIMEOUT": timeout})

    assert project.application().services[0].gate.deadline_seconds == deadline


def test_load_start_after_previous(project: Project) -> None:
    project.edit("deploy/services.yaml", "    alias: frontend", "    start: after_previous")

    assert [service.start for service in project.application().services] == [Start.TOGETHER, Start.AFTER_PREVIOUS]


def test_load_additional_service_needs_only_configuration(project: Project) -> None:
    services = (project.root / "deploy/services.yaml").read_text()
    worker = """
  - name: worker
    image: WORKER_IMAGE
    container_port: 9000
    port: WORKER_PORT
    health: /ready
    gate: {passes: 1, interval_seconds: 500ms}
    mounts: [{source: SPOOL_PATH, target: /spool}]
    required: [WORKER_TOKEN]
    limits: {memory: WORKER_MEMORY_LIMIT}
"""
    project.write("deploy/services.yaml", services + worker)
    keys = {"WORKER_IMAGE": "repo/worker:v7", "WORKER_PORT": "9100", "SPOOL_PATH": "/srv/spool"}
    project.env({**keys, "WORKER_TOKEN": "hush-hush", "WORKER_MEMORY_LIMIT": "64M"})

    environment = project.load(strict=True)

    service = environment.targets[0].application.service("worker")
    assert environment.warnings == ()
    assert (service.image, service.service_port) == (Image("repo/worker", "v7"), 9100)
    assert (service.gate.interval_seconds, service.gate.path, service.alias) == (0.5, "/ready", "worker")
    assert service.mounts == (Mount("/srv/spool", "/spool"),)
    assert service.start is Start.TOGETHER
    assert (service.env, service.memory_bytes) == ((("WORKER_TOKEN", "hush-hush"),), 64 * 1024**2)
    assert "hush-hush" in environment.secrets
