"""The model of an env file: the keys that the suite itself knows, their forms and defaults.

Keys of single services (image, port, limits) are not here: `deploy/services.yaml` names them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fabfile.config import forms

_Text = Annotated[str, BeforeValidator(forms.TEXT)]
_Boolean = Annotated[bool, BeforeValidator(forms.BOOLEAN)]
_Port = Annotated[int, BeforeValidator(forms.PORT)]
_HostPath = Annotated[str, BeforeValidator(forms.HOST_PATH)]
_FilePath = Annotated[str, BeforeValidator(forms.FILE_PATH)]
_WebUrl = Annotated[str, BeforeValidator(forms.WEB_URL)]
_Email = Annotated[str, BeforeValidator(forms.EMAIL)]
_Lowest = Annotated[str, BeforeValidator(forms.SEVERITY)]
_Percent = Annotated[float, BeforeValidator(forms.number(0, 100))]
_Count = Annotated[int, BeforeValidator(forms.whole(1, 100_000))]


def _upper(name: str) -> str:
    return name.upper()


class Settings(BaseModel):
    """The values of one host; a field without a default is a required key."""

    model_config = ConfigDict(alias_generator=_upper, extra="ignore", frozen=True)

    # Application
    app_name: Annotated[str, BeforeValidator(forms.APP_NAME)] = Field(
        description="Name of the application, and of its containers, networks and directories."
    )
    app_version: str = Field(default="", description="Tag of the images that name none, unless `--tag` gives one.")
    environment: Annotated[str, BeforeValidator(forms.ENVIRONMENT_NAME)] = Field(
        description="What this environment is; `production` asks before anything changes."
    )

    # Public address
    domain_name: Annotated[str, BeforeValidator(forms.DOMAIN)] = Field(description="Domain of the site.")
    protocol: Annotated[str, BeforeValidator(forms.one_of("http", "https"))] = Field(
        default="http", description="How visitors reach the site; https needs SSL_CERT_PATH and SSL_KEY_PATH."
    )
    nginx_port: _Port = Field(default=80, description="Public HTTP port.")
    https_port: _Port = Field(default=443, description="Public HTTPS port.")
    ssl_cert_path: _FilePath = Field(default="", description="Certificate on the host.")
    ssl_key_path: _FilePath = Field(default="", description="Its private key on the host.")
    ssl_chain_path: _FilePath = Field(default="", description="Intermediate certificates on the host.")

    # Registry with a login
    registry: Annotated[str, BeforeValidator(forms.REGISTRY)] = Field(
        default="", description="Registry that wants a login: each host logs in before a deploy, where it has not yet."
    )
    registry_username: _Text = Field(default="", description="Login name at the registry.")
    registry_password: _Text = Field(default="", description="Its password or token. Secret.")

    # Data on the host
    database_path: Annotated[str, BeforeValidator(forms.FILE_IN_DIRECTORY)] = Field(
        default="", description="SQLite file; its directory is mounted, because its journals lie beside it."
    )
    database_backup_path: _HostPath = Field(default="", description="Directory of the database's backups.")
    uploads_path: _HostPath = Field(default="", description="Directory of uploaded files.")
    uploads_backup_path: _HostPath = Field(default="", description="Directory of the backups of uploaded files.")
    config_path: _HostPath = Field(default="", description="Directory of the application's own configuration.")
    max_upload_size: Annotated[int, BeforeValidator(forms.SIZE)] = Field(
        default=100 * 1024**2, description="Largest request body that Nginx accepts."
    )
    database_url: str = Field(
        default="", description="Address of a database server; one of PostgreSQL is part of each backup. Secret."
    )

    # Application settings that are passed on
    jwt_secret_key: str = Field(default="", description="Key that signs sessions. Secret.")
    admin_email: _Email = Field(default="", description="Address of the administrator.")
    cloudflare_access_aud: str = Field(default="", description="Audience tag of Cloudflare Access.")
    cloudflare_access_cert_url: _WebUrl = Field(default="", description="Where Cloudflare Access publishes its keys.")
    max_concurrent_uploads: _Count = Field(default=10, description="Uploads at the same time.")
    max_concurrent_exports: _Count = Field(default=5, description="Exports at the same time.")
    worker_processes: Annotated[str, BeforeValidator(forms.WORKERS)] = Field(
        default="auto", description="Worker processes of the application."
    )
    worker_connections: _Count = Field(default=1024, description="Connections of one worker.")
    enable_cache: _Boolean = Field(default=False, description="Use the cache.")
    cache_ttl: Annotated[float, BeforeValidator(forms.duration(0, 31_536_000))] = Field(
        default=3600.0, description="How long a cached answer stays."
    )
    redis_url: Annotated[str, BeforeValidator(forms.REDIS_URL)] = Field(
        default="", description="Address of the cache. Secret where it holds a password."
    )
    enable_metrics: _Boolean = Field(default=False, description="Serve metrics.")
    metrics_port: _Port = Field(default=9090, description="Port of the metrics inside the container.")
    enable_debug: _Boolean = Field(default=False, description="Debug answers.")
    enable_profiling: _Boolean = Field(default=False, description="Profiling.")
    maintenance_mode: _Boolean = Field(
        default=False,
        description="A deploy puts the maintenance page up before its first cutover; once false, it takes it down.",
    )

    # Logs
    log_level: Annotated[str, BeforeValidator(forms.LOG_LEVEL)] = Field(default="info", description="Level of the log.")
    log_file: _FilePath = Field(default="", description="Log of the application on the host.")
    access_log: _FilePath = Field(default="", description="Access log on the host.")
    error_log: _FilePath = Field(default="", description="Error log on the host.")

    # Health and restarts
    health_check_interval: Annotated[float, BeforeValidator(forms.INTERVAL)] = Field(
        default=30.0, description="Pause between two checks of a running service."
    )
    health_check_timeout: Annotated[float, BeforeValidator(forms.duration(0.1, 300))] = Field(
        default=5.0, description="How long one answer may take."
    )
    health_check_start_period: Annotated[float, BeforeValidator(forms.duration(0, 600))] = Field(
        default=60.0, description="How long a new container may fail its checks before failures count."
    )
    health_check_retries: Annotated[int, BeforeValidator(forms.whole(1, 100))] = Field(
        default=3, description="Consecutive failures that mean: not healthy."
    )
    restart_policy: Annotated[str, BeforeValidator(forms.RESTART_POLICY)] = Field(
        default="on-failure", description="What Podman does when a container crashes."
    )

    # What counts as unwell, and what the watchdog does about it
    min_free_percent: _Percent = Field(default=10.0, description="Free disk space and inodes that a host needs.")
    max_memory_percent: _Percent = Field(default=90.0, description="Memory in use, by what is available.")
    min_certificate_days: Annotated[float, BeforeValidator(forms.number(0, 3650))] = Field(
        default=14.0, description="Days that the certificate has left at the least."
    )
    max_clock_offset: Annotated[float, BeforeValidator(forms.duration(0.1, 86_400))] = Field(
        default=5.0, description="How far a host's clock may be from this machine's."
    )
    max_backup_age: Annotated[float, BeforeValidator(forms.duration(60, 31_536_000))] = Field(
        default=93_600.0, description="Age of the last backup at the most, where backups are scheduled."
    )
    auto_recovery_enabled: _Boolean = Field(
        default=True, description="The watchdog restarts, starts anew and rolls back; without it, it only tells."
    )
    recovery_limit: Annotated[int, BeforeValidator(forms.whole(1, 100))] = Field(
        default=3, description="Recoveries within RECOVERY_WINDOW, after which the watchdog gives up."
    )
    recovery_window: Annotated[float, BeforeValidator(forms.duration(60, 86_400))] = Field(
        default=600.0, description="The time in which recoveries are counted."
    )
    fresh_release: Annotated[float, BeforeValidator(forms.duration(0, 604_800))] = Field(
        default=600.0, description="How long a release counts as fresh: it is rolled back where a restart did not help."
    )

    # Monitoring
    metrics_dir: Annotated[str, BeforeValidator(forms.PATH_OR_NONE)] = Field(
        default="/var/lib/prometheus/node-exporter",
        description="Where the watchdog leaves its metrics for node-exporter, where that is there; `none` writes none.",
    )
    request_metrics: _Boolean = Field(
        default=True, description="Nginx keeps a log of request times, which the watchdog counts into its metrics."
    )

    # Backups
    backup_retention_days: Annotated[int, BeforeValidator(forms.whole(1, 3650))] = Field(
        default=30, description="Days for which backups are kept."
    )
    auto_backup_enabled: _Boolean = Field(default=False, description="Back up on a schedule: setup installs a timer.")
    backup_schedule: Annotated[str, BeforeValidator(forms.SCHEDULE)] = Field(
        default="0 2 * * *", description="When, in the host's own time."
    )

    # Notifications
    slack_webhook: _WebUrl = Field(default="", description="Incoming webhook of a Slack channel. Secret.")
    webhook_url: _WebUrl = Field(default="", description="Any service that takes a JSON message. Secret.")
    smtp_host: Annotated[str, BeforeValidator(forms.SERVER)] = Field(default="", description="Mail server.")
    smtp_port: _Port = Field(default=587, description="Its port.")
    smtp_user: _Text = Field(default="", description="Login name at the mail server.")
    smtp_password: _Text = Field(default="", description="Its password. Secret.")
    smtp_from: Annotated[str, BeforeValidator(forms.SENDER)] = Field(default="", description="Sender of the mail.")
    smtp_to: Annotated[str, BeforeValidator(forms.RECIPIENTS)] = Field(default="", description="Recipients.")
    smtp_security: Annotated[str, BeforeValidator(forms.one_of("starttls", "tls", "none"))] = Field(
        default="starttls", description="How the connection to the mail server is protected."
    )
    notify_language: Annotated[str, BeforeValidator(forms.LANGUAGE)] = Field(
        default="en", description="Language of the messages."
    )
    notify_slack: _Lowest = Field(default="info", description="Lowest severity that Slack is told.")
    notify_mail: _Lowest = Field(default="info", description="Lowest severity that is mailed.")
    notify_webhook: _Lowest = Field(default="info", description="Lowest severity that WEBHOOK_URL is told.")
    notify_repeat: Annotated[float, BeforeValidator(forms.duration(60, 2_592_000))] = Field(
        default=21_600.0, description="How long an alert that goes on is not told again."
    )

    # Accepted and unused: Nginx runs on the host itself
    nginx_image: Annotated[object, BeforeValidator(forms.IMAGE)] = Field(default="", description="Not used.")
    nginx_memory_limit: Annotated[int, BeforeValidator(forms.MEMORY)] = Field(default=0, description="Not used.")
    nginx_cpu_limit: Annotated[float, BeforeValidator(forms.CPUS)] = Field(default=0.0, description="Not used.")


#: The env keys that the suite itself knows.
KEYS = tuple(name.upper() for name in Settings.model_fields)
