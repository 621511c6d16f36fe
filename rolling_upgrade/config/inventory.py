"""The models of `hosts.yaml`: environments, hosts, rollout policy, setup and monitoring."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from rolling_upgrade.config import validators
from rolling_upgrade.config.commands import Hooks
from rolling_upgrade.config.issues import Strict
from rolling_upgrade.engine import model

_Word = Annotated[str, validators.WORD]
_Port = Annotated[int, validators.PORT]
_User = Annotated[str, validators.USER]
_Jump = Annotated[str, validators.JUMP]
_LocalFile = Annotated[str, validators.LOCAL_FILE]
_Seconds = Annotated[float, validators.duration(0, 86_400)]
_Lease = Annotated[float, validators.duration(30, 3600)]
_Long = Annotated[float, validators.duration(60, 2_592_000)]
_EnvValue = Annotated[str, validators.Validator("text (quote it if YAML would read another type)", str)]
_Timeout = Annotated[float, validators.duration(1, 300)]


def _empty_mapping(value: object) -> object:
    return {} if value == "" else value


class RolloutPolicy(Strict):
    """How a run proceeds over the hosts of an environment."""

    batch: Annotated[str, validators.BATCH] = Field(
        default=model.RolloutPolicy.batch,
        description="Hosts upgraded at the same time: a number or a percentage.",
    )
    parallel: Annotated[int, validators.integer(1, 256)] = Field(
        default=model.RolloutPolicy.parallel, description="Maximum number of concurrent connections."
    )
    bake_seconds: _Seconds = Field(
        default=model.RolloutPolicy.bake_seconds,
        description="Time for which the new release is monitored before the old one stops.",
    )
    lease_seconds: _Lease = Field(
        default=model.RolloutPolicy.lease_seconds,
        description="Time after which an unrenewed lock of a host expires, and for which a host that has not begun to "
        "change waits for its workstation.",
    )
    retain_releases: Annotated[int, validators.integer(2, 100)] = Field(
        default=model.RolloutPolicy.retain_releases, description="Number of releases whose images are kept on the host."
    )
    connect_timeout_seconds: _Timeout = Field(
        default=model.RolloutPolicy.connect_timeout_seconds, description="Maximum time to open a connection."
    )
    confirm: Annotated[bool, validators.BOOLEAN] | None = Field(
        default=None,
        description="Require confirmation before changes. Default: true when ENVIRONMENT is production.",
    )
    transfer: Annotated[model.Transfer, validators.one_of("pull", "push")] = Field(
        default=model.RolloutPolicy.transfer,
        description="How hosts get images: `pull` from a registry, or `push` from the workstation.",
    )
    signed_by: _LocalFile = Field(
        default=model.RolloutPolicy.signed_by,
        description="Public key (PEM) of cosign or Skopeo. Images without a signature by this key are not pulled.",
    )


class Setup(Strict):
    """Optional parts of `rolling-upgrade setup`, all disabled by default."""

    firewall: Annotated[model.Firewall, validators.one_of("none", "nftables", "ufw")] = Field(
        default=model.Preparation.firewall,
        description="Program that closes all ports except those of SSH and of the site.",
    )
    certificate: Annotated[model.Certificate, validators.one_of("files", "self-signed", "acme")] = Field(
        default=model.Preparation.certificate,
        description="Source of the certificate at SSL_CERT_PATH: your own file, self-signed, or certbot.",
    )
    acme_email: Annotated[str, validators.EMAIL] = Field(
        default=model.Preparation.acme_email,
        description="Contact address for the certificate authority. Required for `acme`.",
    )
    acme_server: Annotated[str, validators.HTTPS_URL] = Field(
        default=model.Preparation.acme_server,
        description="Directory URL of the certificate authority. Default: Let's Encrypt.",
    )
    sysctl: dict[
        Annotated[str, validators.SYSCTL_NAME],
        Annotated[str, validators.SYSCTL_VALUE],
    ] = Field(default={}, description="Kernel settings. file-max and somaxconn are raised, never lowered.")
    security_updates: Annotated[bool, validators.BOOLEAN] = Field(
        default=model.Preparation.security_updates, description="Install security updates unattended."
    )
    rotate_logs_days: Annotated[int, validators.integer(0, 3650)] = Field(
        default=model.Preparation.rotate_logs_days,
        description="Days for which LOG_FILE, ACCESS_LOG and ERROR_LOG are kept, one file per day. 0: no rotation.",
    )
    watchdog: Annotated[bool, validators.BOOLEAN] = Field(
        default=model.Preparation.watchdog, description="Install the watchdog, like `rolling-upgrade monitor.install`."
    )
    node_exporter: Annotated[bool, validators.BOOLEAN] = Field(
        default=model.Preparation.node_exporter,
        description="Install Debian's prometheus-node-exporter and let the watchdog write to METRICS_DIR.",
    )
    monitoring_host: Annotated[str, validators.IP_ADDRESS] = Field(
        default=model.Preparation.monitoring_host,
        description="IP address that may reach node-exporter's port (9100) through `firewall`.",
    )


class Monitoring(Strict):
    """The host that monitors an environment from outside (`rolling-upgrade observe.install`), and its alerts."""

    address: Annotated[str, validators.ADDRESS] = Field(
        default=model.Monitoring.address,
        description="IP address, host name or ssh_config alias. Required for `rolling-upgrade observe.install`.",
    )
    user: _User = Field(default=model.Monitoring.user, description="Login name: root, or a user with sudo.")
    port: _Port = Field(default=model.Monitoring.port, description="SSH port.")
    jump: _Jump = Field(default=model.Monitoring.jump, description="Jump host: [user@]host[:port].")
    latency_seconds: Annotated[float, validators.duration(0.001, 10)] = Field(
        default=model.Monitoring.latency_seconds,
        description="Alert threshold for the 95th percentile of response times.",
    )
    error_percent: Annotated[float, validators.number(0.01, 100)] = Field(
        default=model.Monitoring.error_percent,
        description="Alert threshold for the share of 5xx responses of a service, in percent.",
    )
    lock_seconds: _Long = Field(
        default=model.Monitoring.lock_seconds, description="Time after which a held lock raises an alert."
    )
    mixed_seconds: _Long = Field(
        default=model.Monitoring.mixed_seconds,
        description="Time after which different releases on the hosts raise an alert.",
    )
    maintenance_seconds: _Long = Field(
        default=model.Monitoring.maintenance_seconds,
        description="Time after which an enabled maintenance page raises an alert.",
    )
    runbook: Annotated[str, validators.WEB_URL] = Field(
        default=model.Monitoring.runbook,
        description="URL under which your team reads docs/runbook.md; alerts link to their sections there.",
    )


class Host(Strict):
    """One host of an environment."""

    address: Annotated[str, validators.ADDRESS] = Field(
        default="", description="IP address, host name or ssh_config alias. Default: the name of the host."
    )
    port: _Port | None = Field(default=None, description="SSH port. Default: the port of the environment.")
    user: _User = Field(default="", description="Login name. Default: the user of the environment.")
    roles: tuple[_Word, ...] = Field(default=(), description="Roles of the host, for `--hosts`.")
    groups: tuple[_Word, ...] = Field(default=(), description="Groups of the host, for `--hosts`.")
    jump: _Jump = Field(default="", description="Jump host, or `none`. Default: the jump host of the environment.")
    metrics_address: Annotated[str, validators.SERVER] = Field(
        default="", description="Address for the monitoring host. Default: `address`."
    )
    env: dict[str, _EnvValue] = Field(default={}, description="Overrides of env keys on this host.")


class EnvironmentEntry(Strict):
    """One environment."""

    env_file: _LocalFile = Field(default="", description="Env file. Default: deploy/NAME.env.")
    env_command: Annotated[tuple[str, ...], validators.COMMAND] = Field(
        default=(), description="Command whose output is the env file, in place of a file. It runs beside this file."
    )
    env_command_timeout_seconds: Annotated[float, validators.duration(1, 3600)] = Field(
        default=120.0, description="Deadline of `env_command`, including the time for your answers to it."
    )
    services_file: _LocalFile = Field(default="deploy/services.yaml", description="Services file.")
    known_hosts: _LocalFile = Field(
        default="",
        description="File with host keys, read in addition to `known_hosts` beside this file and ~/.ssh/known_hosts.",
    )
    identity_file: _LocalFile = Field(default="", description="Private SSH key. Default: the SSH agent and ssh_config.")
    age_identity: _LocalFile = Field(
        default="",
        description="Private key for an env file encrypted by age, tried before "
        "ROLLING_AGE_KEY, ROLLING_AGE_KEY_FILE, identity_file and the keys in ~/.ssh.",
    )
    recipients_file: _LocalFile = Field(
        default="", description="Public keys for which the env file is encrypted. Default: deploy/recipients/NAME.txt."
    )
    user: _User = Field(default="deploy", description="Login name of the owner of the containers.")
    setup_user: _User = Field(
        default=model.Target.setup_user,
        description="Login name for `rolling-upgrade setup`: root, or a user with sudo.",
    )
    port: _Port = Field(default=model.Target.port, description="SSH port.")
    jump: _Jump = Field(default="", description="Jump host for all hosts: [user@]host[:port].")
    rollout: RolloutPolicy = Field(default=RolloutPolicy(), description="How a run proceeds over the hosts.")
    setup: Setup = Field(default=Setup(), description="Optional parts of `rolling-upgrade setup`.")
    monitoring: Monitoring = Field(default=Monitoring(), description="Monitoring from outside.")
    hooks: Hooks = Field(
        default=Hooks(), description="Hooks of this environment; they replace those of the services file one by one."
    )
    hosts: dict[_Word, Annotated[Host, BeforeValidator(_empty_mapping, json_schema_input_type=Host | None)]] = Field(
        default={}, description="The hosts, by name."
    )


class Inventory(Strict):
    """The content of the file."""

    environments: dict[
        Annotated[str, validators.ENVIRONMENT_NAME],
        Annotated[EnvironmentEntry, BeforeValidator(_empty_mapping, json_schema_input_type=EnvironmentEntry | None)],
    ] = Field(description="The environments, by name.")
