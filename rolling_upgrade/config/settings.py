"""The settings of an env file: their keys, validators and defaults.

The keys of services, such as images, ports, limits and the variables of containers, are named by
`deploy/services.yaml`, which is all that makes them known. Their texts are passed on as they are.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rolling_upgrade.config import validators

_Text = Annotated[str, validators.TEXT]
_Boolean = Annotated[bool, validators.BOOLEAN]
_Port = Annotated[int, validators.PORT]
_HostPath = Annotated[str, validators.HOST_PATH]
_FilePath = Annotated[str, validators.FILE_PATH]
_WebUrl = Annotated[str, validators.WEB_URL]
_Lowest = Annotated[str, validators.SEVERITY]
_Percent = Annotated[float, validators.number(0, 100)]


class Settings(BaseModel):
    """The settings of one host. A field without a default is a required key."""

    model_config = ConfigDict(alias_generator=str.upper, extra="ignore", frozen=True)

    # Application
    app_name: Annotated[str, validators.APP_NAME] = Field(
        description="Name of the application. Containers, networks and directories are named after it."
    )
    app_version: str = Field(default="", description="Default tag for images without a tag. `--tag` overrides it.")
    environment: Annotated[str, validators.ENVIRONMENT_NAME] = Field(
        default="",
        description="Name of the environment. `production` requires confirmation before changes. Default: its name in "
        "hosts.yaml.",
    )

    # Public address
    domain_name: Annotated[str, validators.DOMAIN] = Field(description="Domain of the site.")
    protocol: Annotated[str, validators.one_of("http", "https")] = Field(
        default="http", description="Protocol of the site. `https` requires SSL_CERT_PATH and SSL_KEY_PATH."
    )
    nginx_port: _Port = Field(default=80, description="Public HTTP port.")
    https_port: _Port = Field(default=443, description="Public HTTPS port.")
    ssl_cert_path: _FilePath = Field(default="", description="Path of the certificate on the host.")
    ssl_key_path: _FilePath = Field(default="", description="Path of the certificate's private key on the host.")
    ssl_chain_path: _FilePath = Field(
        default="",
        description="Path of the intermediate certificates on the host, when the certificate file lacks them. "
        "Setup joins both files for Nginx.",
    )

    # Registry with a login
    registry: Annotated[str, validators.REGISTRY] = Field(
        default="", description="Registry with a login. Hosts that are not logged in log in before a deploy."
    )
    registry_username: _Text = Field(default="", description="User name at the registry.")
    registry_password: _Text = Field(default="", description="Password or token for the registry. Secret.")

    # Data on the host
    database_path: Annotated[str, validators.FILE_IN_DIRECTORY] = Field(
        default="",
        description="SQLite database file. Its directory is mounted, because SQLite keeps journals beside the file.",
    )
    database_backup_path: _HostPath = Field(default="", description="Directory for backups of the database.")
    uploads_path: _HostPath = Field(default="", description="Directory of uploaded files.")
    uploads_backup_path: _HostPath = Field(default="", description="Directory for backups of uploaded files.")
    config_path: _HostPath = Field(default="", description="Directory of the application's configuration files.")
    max_upload_size: Annotated[int, validators.SIZE] = Field(
        default=100 * 1024**2, description="Largest request body that Nginx accepts."
    )
    database_url: str = Field(
        default="", description="URL of a database server. Backups include the database of a PostgreSQL server. Secret."
    )

    maintenance_mode: _Boolean = Field(
        default=False,
        description="A deploy enables the maintenance page before its first cutover, and disables it when false.",
    )

    # Logs
    log_file: _Text = Field(default="", description="Application log on the host.")
    access_log: _Text = Field(default="", description="Access log on the host.")
    error_log: _Text = Field(default="", description="Error log on the host.")

    # Health and restarts
    health_check_interval: Annotated[float, validators.INTERVAL] = Field(
        default=30.0, description="Interval between two checks of a running service."
    )
    health_check_timeout: Annotated[float, validators.duration(0.1, 300)] = Field(
        default=5.0, description="Maximum time for one response."
    )
    health_check_start_period: Annotated[float, validators.duration(0, 600)] = Field(
        default=60.0, description="Time after the start of a container in which failed checks do not count."
    )
    health_check_retries: Annotated[int, validators.integer(1, 100)] = Field(
        default=3, description="Consecutive failures after which a service is unhealthy."
    )
    restart_policy: Annotated[str, validators.RESTART_POLICY] = Field(
        default="on-failure", description="Podman's restart policy for crashed containers."
    )

    # Health thresholds and the watchdog
    min_free_percent: _Percent = Field(default=10.0, description="Minimum free disk space and inodes, in percent.")
    max_memory_percent: _Percent = Field(default=90.0, description="Maximum memory in use, in percent.")
    min_certificate_days: Annotated[float, validators.number(0, 3650)] = Field(
        default=14.0, description="Minimum remaining validity of the certificate, in days."
    )
    max_clock_offset: Annotated[float, validators.duration(0.1, 86_400)] = Field(
        default=5.0, description="Maximum offset between a host's clock and this machine's."
    )
    max_backup_age: Annotated[float, validators.duration(60, 31_536_000)] = Field(
        default=93_600.0, description="Maximum age of the last backup, when backups are scheduled."
    )
    auto_recovery_enabled: _Boolean = Field(
        default=True,
        description="The watchdog restarts and recreates containers and rolls back. When false, it only notifies.",
    )
    recovery_limit: Annotated[int, validators.integer(1, 100)] = Field(
        default=3, description="Maximum recoveries within RECOVERY_WINDOW; then the watchdog gives up."
    )
    recovery_window: Annotated[float, validators.duration(60, 86_400)] = Field(
        default=600.0, description="Period in which recoveries are counted."
    )
    fresh_release: Annotated[float, validators.duration(0, 604_800)] = Field(
        default=600.0, description="Age up to which the watchdog rolls a release back when a restart did not help."
    )

    # Monitoring
    metrics_dir: Annotated[str, validators.PATH_OR_NONE] = Field(
        default="/var/lib/prometheus/node-exporter",
        description="Directory of node-exporter's textfile collector for the watchdog's metrics. `none` disables them.",
    )
    request_metrics: _Boolean = Field(
        default=True, description="Nginx logs request times, which the watchdog adds to its metrics."
    )

    # Backups
    backup_retention_days: Annotated[int, validators.integer(1, 3650)] = Field(
        default=30, description="Retention of backups in days."
    )
    auto_backup_enabled: _Boolean = Field(
        default=False, description="Schedule backups with a timer that setup installs."
    )
    backup_schedule: Annotated[str, validators.SCHEDULE] = Field(
        default="0 2 * * *", description="Schedule of the backups in the host's time zone."
    )

    # Notifications
    slack_webhook: _WebUrl = Field(default="", description="Incoming webhook URL of a Slack channel. Secret.")
    webhook_url: _WebUrl = Field(default="", description="URL that receives messages as JSON. Secret.")
    smtp_host: Annotated[str, validators.SERVER] = Field(
        default="", description="Mail server. Mail also requires SMTP_FROM and SMTP_TO."
    )
    smtp_port: _Port = Field(default=587, description="Port of the mail server.")
    smtp_user: _Text = Field(default="", description="User name at the mail server.")
    smtp_password: _Text = Field(default="", description="Password at the mail server. Secret.")
    smtp_from: Annotated[str, validators.SENDER] = Field(default="", description="Sender address.")
    smtp_to: Annotated[str, validators.RECIPIENTS] = Field(default="", description="Recipient addresses.")
    smtp_security: Annotated[str, validators.one_of("starttls", "tls", "none")] = Field(
        default="starttls", description="Encryption of the connection to the mail server."
    )
    notify_language: Annotated[str, validators.LANGUAGE] = Field(default="en", description="Language of the messages.")
    notify_slack: _Lowest = Field(default="info", description="Lowest severity that is sent to Slack.")
    notify_mail: _Lowest = Field(default="info", description="Lowest severity that is sent by mail.")
    notify_webhook: _Lowest = Field(default="info", description="Lowest severity that is sent to WEBHOOK_URL.")
    notify_repeat: Annotated[float, validators.duration(60, 2_592_000)] = Field(
        default=21_600.0, description="Interval after which an ongoing alert is sent again."
    )

    # Accepted for compatibility: Nginx runs on the host, not in a container
    nginx_image: Annotated[object, validators.IMAGE] = Field(
        default="", description="No effect: Nginx runs on the host."
    )
    nginx_memory_limit: Annotated[int, validators.MEMORY] = Field(
        default=0, description="No effect: Nginx runs on the host."
    )
    nginx_cpu_limit: Annotated[float, validators.CPUS] = Field(
        default=0.0, description="No effect: Nginx runs on the host."
    )


#: The keys of all settings.
KEYS = tuple(name.upper() for name in Settings.model_fields)
