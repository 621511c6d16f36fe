"""The environment that `load` returns for a valid configuration."""

from __future__ import annotations

import subprocess
import sys

from rolling_upgrade.engine.model import Color, Image, Probe, Route, Tls
from tests.support.project import ROOT, Project

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


def test_load_memoryark_example_sets_the_application(project: Project) -> None:
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
    assert (backend.service_port, backend.port(Color.GREEN)) == (8080, 28080)
    assert backend.routes == (Route("/api/", stream=True), Route("/ws", stream=True))
    assert (frontend.name, frontend.service_port, frontend.alias) == ("frontend", 7001, "frontend")
    assert frontend.routes == (Route("/"),)


def test_load_env_file_syntax_variants_give_the_same_values(project: Project) -> None:
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


def test_load_required_keys_only_uses_the_defaults(project: Project) -> None:
    app = project.application()

    assert app.tls is None
    assert (app.http_port, app.https_port, app.max_upload_bytes) == (80, 443, 100 * 1024**2)
    assert (app.maintenance, app.backup_retention_days, app.log_directories) == (False, 30, ())
    assert [service.service_port for service in app.services] == [8080, 7001]
    assert [service.memory_bytes for service in app.services] == [None, None]
    assert app.services[0].restart_policy == "on-failure"


def test_load_empty_value_counts_as_not_set(project: Project) -> None:
    project.env({"SMTP_PORT": "", "REDIS_URL": "", "BACKEND_PORT": "", "CONFIG_PATH": "", "SLACK_WEBHOOK": ""})

    assert project.application().services[0].service_port == 8080


def test_load_unknown_key_is_a_warning_with_a_suggestion(project: Project) -> None:
    project.env({"BACKND_PORT": "8090", "XYZZY": "1"})

    assert project.load().warnings == (
        "deploy/demo.env:10: BACKND_PORT: unknown, without effect (did you mean BACKEND_PORT?)",
        "deploy/demo.env:11: XYZZY: unknown, without effect",
    )


def test_load_placeholder_in_a_secret_is_a_warning_without_the_value(project: Project) -> None:
    project.env({"JWT_SECRET_KEY": "your-super-secret-jwt-key"})

    (warning,) = project.load(strict=True).warnings

    assert "JWT_SECRET_KEY: a placeholder" in warning
    assert "your-super" not in warning


def test_load_secrets_include_secret_keys_and_passwords_in_urls(project: Project) -> None:
    project.env(
        {
            "SMTP_PASSWORD": "open-sesame",
            "SLACK_WEBHOOK": "https://hooks.example.org/T1",
            "REDIS_URL": "redis://:pa55word@cache:6379",
            "DATABASE_URL": "postgresql://ark@db/ark",
            "SSL_KEY_PATH": "/etc/ssl/private/ark.key",
            "MY_TOKEN": "abc",
            "SECRET_ENABLED": "true",
            "NOTIFY_WEBHOOK": "critical",
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


def test_load_notification_keys_are_known(project: Project) -> None:
    project.env(
        {
            "SLACK_WEBHOOK": "https://hooks.example.org/services/T/B/x",
            "WEBHOOK_URL": "https://192.0.2.9:8000/hook",
            "SMTP_HOST": "mail.example.org",
            "SMTP_PORT": "465",
            "SMTP_USER": "ark",
            "SMTP_PASSWORD": "'p w#1'",
            "SMTP_FROM": "MemoryArk <ark@example.org>",
            "SMTP_TO": "a@example.org,b@example.org",
            "SMTP_SECURITY": "tls",
            "NOTIFY_LANGUAGE": "zh-TW",
        }
    )

    assert project.load(strict=True).warnings == ()


def test_load_database_server_with_database_path_warns_about_backups(project: Project) -> None:
    project.env({"DATABASE_URL": "postgresql://ark:pw@db/ark"})

    (warning,) = project.load(strict=True).warnings

    assert "so backups contain its database, not the file at DATABASE_PATH" in warning


def test_import_of_config_loads_no_heavy_module() -> None:
    code = "import sys, rolling_upgrade.config; print(*{'pydantic', 'yaml', 'dotenv'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""
