"""What `load` gives when the configuration is good."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fabfile import config
from fabfile.model import Application, Color, Gate, Image, Mount, Probe, Rollout, Route, Tls
from tests.config.project import SHIPPED, Project

# The keys, values and order of an env file as the application's own deployment scripts use it.
MEMORYARK = """\
# MemoryArk 2.0
APP_NAME=memoryark
APP_VERSION=2.0.1
ENVIRONMENT=production
BACKEND_IMAGE=memoryark/backend
FRONTEND_IMAGE=memoryark/frontend
NGINX_IMAGE=nginx
DOMAIN_NAME=files.example.org
PROTOCOL=https
DATABASE_PATH=/home/memoryark/data/memoryark.db
DATABASE_BACKUP_PATH=/home/memoryark/backups/database
UPLOADS_PATH=/home/memoryark/uploads
UPLOADS_BACKUP_PATH=/home/memoryark/backups/uploads
MAX_UPLOAD_SIZE=100M
BACKEND_PORT=8080
FRONTEND_PORT=7001
NGINX_PORT=80
HTTPS_PORT=443
JWT_SECRET_KEY=a-secret-that-is-long
ADMIN_EMAIL=admin@example.org
CLOUDFLARE_ACCESS_AUD=audience
CLOUDFLARE_ACCESS_CERT_URL=https://team.example.org/cdn-cgi/access/certs
MAX_CONCURRENT_UPLOADS=10
MAX_CONCURRENT_EXPORTS=5
WORKER_PROCESSES=auto
WORKER_CONNECTIONS=1024
ENABLE_CACHE=true
CACHE_TTL=3600
REDIS_URL=redis://localhost:6379
LOG_LEVEL=info
LOG_FILE=/home/memoryark/logs/app.log
ACCESS_LOG=/home/memoryark/logs/access.log
ERROR_LOG=/home/memoryark/logs/nginx/error.log
ENABLE_METRICS=true
METRICS_PORT=9090
HEALTH_CHECK_INTERVAL=30
BACKUP_RETENTION_DAYS=14
AUTO_BACKUP_ENABLED=true
BACKUP_SCHEDULE="0 2 * * *"
SSL_CERT_PATH=/etc/ssl/certs/memoryark.crt
SSL_KEY_PATH=/etc/ssl/private/memoryark.key
SSL_CHAIN_PATH=/etc/ssl/certs/memoryark-chain.crt
BACKEND_MEMORY_LIMIT=1GB
BACKEND_CPU_LIMIT=1.0
FRONTEND_MEMORY_LIMIT=512MB
FRONTEND_CPU_LIMIT=0.5
NGINX_MEMORY_LIMIT=256MB
NGINX_CPU_LIMIT=0.3
RESTART_POLICY=unless-stopped
HEALTH_CHECK_RETRIES=3
HEALTH_CHECK_TIMEOUT=30s
HEALTH_CHECK_START_PERIOD=60s
ENABLE_DEBUG=false
ENABLE_PROFILING=false
MAINTENANCE_MODE=false
"""


def application(project: Project, **options: str) -> Application:
    """The application of the first host."""
    return project.load(**options).targets[0].application  # type: ignore[arg-type]  # tag is all that is passed


def test_load_memoryark_file_unchanged_fills_the_application(project: Project) -> None:
    project.write("deploy/demo.env", MEMORYARK)

    environment = project.load(strict=True)

    app = environment.targets[0].application
    backend, frontend = app.services
    assert environment.warnings == ()
    assert (app.name, app.environment, app.domain) == ("memoryark", "production", "files.example.org")
    assert app.tls == Tls(
        "/etc/ssl/certs/memoryark.crt", "/etc/ssl/private/memoryark.key", "/etc/ssl/certs/memoryark-chain.crt"
    )
    assert app.full_chain == Probe("frontend", "/api/health")
    assert app.log_directories == ("/home/memoryark/logs", "/home/memoryark/logs/nginx")
    assert (app.max_upload_bytes, app.backup_retention_days) == (100 * 1024**2, 14)
    assert (app.database, app.uploads) == ("/home/memoryark/data/memoryark.db", "/home/memoryark/uploads")
    assert (app.database_backups, app.uploads_backups) == (
        "/home/memoryark/backups/database",
        "/home/memoryark/backups/uploads",
    )
    assert backend.image == Image("memoryark/backend", "2.0.1")
    assert (backend.memory_bytes, backend.cpus, backend.restart_policy) == (1024**3, 1.0, "unless-stopped")
    assert (backend.stable_port, backend.port(Color.GREEN)) == (8080, 28080)
    assert backend.routes == (Route("/api/", stream=True), Route("/ws", stream=True))
    assert (frontend.name, frontend.stable_port, frontend.alias) == ("frontend", 7001, "frontend")
    assert frontend.routes == (Route("/"),)


def test_load_windows_line_ends_quotes_export_and_comments_read_alike(project: Project) -> None:
    lines = [line for line in MEMORYARK.splitlines() if not line.startswith("#")]
    variants = ["\ufeff# a comment"]
    for line in lines:
        key, _, value = line.partition("=")
        bare = value.strip('"')
        variants += [f"export {key}='{bare}'   # why", "", f"# {line}"]
    project.write("deploy/demo.env", MEMORYARK)
    plain = project.load()

    project.write("deploy/demo.env", "\r\n".join(variants))

    assert project.load() == plain


def test_load_few_keys_uses_the_defaults(project: Project) -> None:
    app = application(project)

    assert app.tls is None
    assert (app.http_port, app.https_port, app.max_upload_bytes) == (80, 443, 100 * 1024**2)
    assert (app.maintenance, app.backup_retention_days, app.log_directories) == (False, 30, ())
    assert [service.stable_port for service in app.services] == [8080, 7001]
    assert [service.memory_bytes for service in app.services] == [None, None]
    assert app.services[0].restart_policy == "on-failure"


def test_load_rollout_left_out_is_the_models_default(project: Project) -> None:
    assert project.load().rollout == Rollout()


def test_load_empty_value_counts_as_not_set(project: Project) -> None:
    project.env(
        {"SMTP_PORT": "", "REDIS_URL": "", "BACKEND_PORT": "", "CONFIG_PATH": "", "SLACK_WEBHOOK": ""}
    )

    assert application(project).services[0].stable_port == 8080


@pytest.mark.parametrize("tag", ["", "v3.0.0"])
def test_load_app_version_received_is_the_tag_asked_for(project: Project, tag: str) -> None:
    env = dict(application(project, tag=tag).services[0].env)

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
def test_load_tag_of_an_image_comes_from_the_nearest_source(
    project: Project, image: str, version: str | None, tag: str, expected: Image
) -> None:
    project.env({"BACKEND_IMAGE": image, "APP_VERSION": version, "FRONTEND_IMAGE": "repo/frontend:v1"})

    assert application(project, tag=tag).services[0].image == expected


def test_load_database_file_mounts_its_directory(project: Project) -> None:
    project.env(
        {"DATABASE_PATH": "/srv/ark/other name.db".replace(" ", "-"), "CONFIG_PATH": "/srv/ark/config"}
    )

    backend = application(project).services[0]

    assert backend.mounts == (
        Mount("/srv/ark", "/app/data"),
        Mount("/srv/memoryark/uploads", "/app/uploads"),
        Mount("/srv/ark/config", "/app/config", read_only=True),
    )


def test_load_mounts_keys_reach_the_container_as_paths_inside(project: Project) -> None:
    project.env({"DATABASE_PATH": "/srv/ark/other.db", "CONFIG_PATH": "/srv/ark/config"})

    env = dict(application(project).services[0].env)

    assert env["DATABASE_PATH"] == "/app/data/other.db"
    assert (env["UPLOADS_PATH"], env["CONFIG_PATH"]) == ("/app/uploads", "/app/config")


def test_load_secret_goes_to_the_backend_alone(project: Project) -> None:
    backend, frontend = application(project).services

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
def test_load_value_that_only_a_container_reads_survives_as_written(project: Project, value: str) -> None:
    project.env({"JWT_SECRET_KEY": f"'{value}'"})

    assert dict(application(project).services[0].env)["JWT_SECRET_KEY"] == value


def test_load_health_check_keys_complete_the_gate(project: Project) -> None:
    project.env(
        {"HEALTH_CHECK_TIMEOUT": "2s", "HEALTH_CHECK_START_PERIOD": "500ms", "HEALTH_CHECK_RETRIES": "5"}
    )

    assert application(project).services[0].gate == Gate(
        path="/api/health",
        passes=3,
        interval_seconds=1.0,
        timeout_seconds=2.0,
        start_period_seconds=0.5,
        retries=5,
        deadline_seconds=120.0,
    )


@pytest.mark.parametrize(
    ("start", "timeout", "deadline"),
    [("60s", "30s", 60 + 6 * 31.0), ("10s", "5s", 120.0), ("600s", "300s", 900.0)],
)
def test_load_gates_deadline_leaves_room_for_a_slow_start_up_to_a_cap(
    project: Project, start: str, timeout: str, deadline: float
) -> None:
    project.env({"HEALTH_CHECK_START_PERIOD": start, "HEALTH_CHECK_TIMEOUT": timeout})

    assert application(project).services[0].gate.deadline_seconds == deadline


def test_load_third_service_needs_no_code(project: Project) -> None:
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
    assert (service.image, service.stable_port) == (Image("repo/worker", "v7"), 9100)
    assert (service.gate.interval_seconds, service.gate.path, service.alias) == (0.5, "/ready", "worker")
    assert service.mounts == (Mount("/srv/spool", "/spool"),)
    assert (service.env, service.memory_bytes) == ((("WORKER_TOKEN", "hush-hush"),), 64 * 1024**2)
    assert "hush-hush" in environment.secrets


def test_load_unknown_key_is_a_warning_with_the_nearest_name(project: Project) -> None:
    project.env({"BACKND_PORT": "8090", "XYZZY": "1"})

    assert project.load().warnings == (
        "deploy/demo.env: nothing uses the key BACKND_PORT; the nearest known key is BACKEND_PORT",
        "deploy/demo.env: nothing uses the key XYZZY",
    )


def test_load_placeholder_in_a_secret_is_a_warning_without_the_value(project: Project) -> None:
    project.env({"JWT_SECRET_KEY": "your-super-secret-jwt-key"})

    (warning,) = project.load(strict=True).warnings

    assert "JWT_SECRET_KEY still holds a placeholder" in warning
    assert "your-super" not in warning


def test_load_secrets_are_found_by_name_and_in_addresses(project: Project) -> None:
    project.env(
        {
            "SMTP_PASSWORD": "open-sesame",
            "SLACK_WEBHOOK": "https://hooks.example.org/T1",
            "REDIS_URL": "redis://:pa55word@cache:6379",
            "DATABASE_URL": "postgresql://ark@db/ark",
            "SSL_KEY_PATH": "/etc/ssl/private/ark.key",
            "MY_TOKEN": "abc",
            "SECRET_ENABLED": "true",
        }
    )

    environment = project.load()

    assert set(environment.secrets) == {
        "correct-horse-battery",
        "open-sesame",
        "https://hooks.example.org/T1",
        "redis://:pa55word@cache:6379",
        "pa55word",
        "postgresql://ark@db/ark",
    }
    assert not any(secret in repr(environment) for secret in environment.secrets)


def test_load_host_override_holds_on_that_host_alone(project: Project) -> None:
    project.edit(
        "hosts.yaml", "roles: [web]}\n", "env: {BACKEND_MEMORY_LIMIT: 2GB, API_TOKEN_KEY: s3cret!}}\n"
    )
    project.edit("deploy/services.yaml", "      - REDIS_URL", "      - REDIS_URL\n      - API_TOKEN_KEY")
    project.env({"BACKEND_MEMORY_LIMIT": "1GB"})

    environment = project.load()

    web1, web2 = (target.application.services[0] for target in environment.targets)
    assert (web1.memory_bytes, web2.memory_bytes) == (1024**3, 2 * 1024**3)
    assert ("API_TOKEN_KEY", "s3cret!") in web2.env
    assert "API_TOKEN_KEY" not in dict(web1.env)
    assert "s3cret!" in environment.secrets


def test_load_host_settings_fall_back_to_the_environment(project: Project) -> None:
    project.write(
        "hosts.yaml",
        """\
environments:
  demo:
    user: ark
    setup_user: admin
    port: 2222
    jump: ops@bastion.example.org:2200
    hosts:
      web1: {address: 192.0.2.11}
      web2: {address: 192.0.2.12, port: 22, user: other, jump: none}
      bare:
""",
    )

    web1, web2, bare = project.load().targets

    assert (web1.user, web1.setup_user, web1.port, web1.jump) == (
        "ark",
        "admin",
        2222,
        "ops@bastion.example.org:2200",
    )
    assert (web2.user, web2.port, web2.jump) == ("other", 22, "")
    assert bare.address == "bare"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((), ["web1", "web2"]),
        (("web2",), ["web2"]),
        (("canary",), ["web1"]),
        (("web",), ["web1", "web2"]),
        (("web2", "canary"), ["web1", "web2"]),
        (("web1", "web1"), ["web1"]),
    ],
)
def test_load_hosts_are_picked_by_name_group_or_role(
    project: Project, words: tuple[str, ...], names: list[str]
) -> None:
    assert [target.name for target in project.load(hosts=words).targets] == names


@pytest.mark.parametrize(
    ("environment", "declared", "confirm"),
    [
        ("staging", "", False),
        ("production", "", True),
        ("production", "false", False),
        ("staging", "yes", True),
    ],
)
def test_load_confirm_defaults_to_production(
    project: Project, environment: str, declared: str, confirm: bool
) -> None:
    project.env({"ENVIRONMENT": environment})
    if declared:
        project.edit("hosts.yaml", "    hosts:\n", f"    rollout: {{confirm: {declared}}}\n    hosts:\n")

    assert project.load().rollout.confirm is confirm


def test_load_environment_named_production_asks_whatever_its_file_says(project: Project) -> None:
    project.edit("hosts.yaml", "  demo:\n", "  production:\n    env_file: deploy/demo.env\n")

    assert project.load("production").rollout.confirm is True


def test_load_known_hosts_are_the_existing_ones_in_order(project: Project, tmp_path: Path) -> None:
    project.edit("hosts.yaml", "    hosts:\n", "    known_hosts: keys/demo\n    hosts:\n")
    assert project.load().known_hosts == ()
    own = project.write("keys/demo", "")
    beside = project.write("known_hosts", "")
    (tmp_path / "home/.ssh").mkdir()
    users = tmp_path / "home/.ssh/known_hosts"
    users.touch()

    assert project.load().known_hosts == (str(own), str(beside), str(users))


def test_load_environment_of_the_lab_is_found_beside_the_others(project: Project) -> None:
    project.write(
        ".lab/lab/hosts.yaml",
        """\
environments:
  lab:
    env_file: lab.env
    services_file: ../../deploy/services.yaml
    identity_file: id_ed25519
    known_hosts: known_hosts
    hosts: {web1: {address: 192.0.2.31}}
""",
    )
    project.write(".lab/lab/lab.env", (project.root / "deploy/demo.env").read_text())
    key = project.write(".lab/lab/id_ed25519", "")
    known = project.write(".lab/lab/known_hosts", "")

    environment = project.load("lab")

    assert config.environments(project.root) == ("demo", "lab")
    assert environment.targets[0].identity_file == str(key)
    assert environment.known_hosts == (str(known),)


def test_load_broken_lab_does_not_stop_another_environment(project: Project) -> None:
    project.write(".lab/lab/hosts.yaml", "environments: [")

    assert project.load().name == "demo"
    assert config.environments(project.root) == ("demo",)


def test_load_yaml_values_stay_as_written(project: Project) -> None:
    project.edit(
        "hosts.yaml", "roles: [web]}\n", "env: {LOG_LEVEL: no, WORKER_PROCESSES: 8, CACHE_TTL: 1}}\n"
    )

    env = dict(project.load().targets[1].application.services[0].env)

    assert (env["LOG_LEVEL"], env["WORKER_PROCESSES"], env["CACHE_TTL"]) == ("no", "8", "1")


def test_load_notification_keys_are_known(project: Project) -> None:
    project.env(
        {
            "SLACK_WEBHOOK": "https://hooks.example.org/services/T/B/x",
            "WEBHOOK_URL": "http://192.0.2.9:8000/hook",
            "SMTP_HOST": "mail.example.org",
            "SMTP_PORT": "465",
            "SMTP_USER": "ark",
            "SMTP_PASSWORD": "'p w#1'",
            "SMTP_FROM": "MemoryArk <ark@example.org>",
            "SMTP_TO": "a@example.org,b@example.org",
            "SMTP_SECURITY": "tls",
            "NOTIFY_LANGUAGE": "zh-TW",
            "DATABASE_URL": "postgresql://ark:pw@db/ark",
        }
    )

    assert project.load(strict=True).warnings == ()


def test_import_of_config_loads_no_heavy_module() -> None:
    code = "import sys, fabfile.config; print(*{'pydantic', 'yaml', 'dotenv'} & set(sys.modules))"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SHIPPED, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == ""
