"""The model of `hosts.yaml`: environments, their hosts, and how a run treats them. It resolves nothing."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from fabfile import model
from fabfile.config import forms
from fabfile.config.validation import Strict

_Word = Annotated[str, BeforeValidator(forms.WORD)]
_Port = Annotated[int, BeforeValidator(forms.PORT)]
_User = Annotated[str, BeforeValidator(forms.USER)]
_Jump = Annotated[str, BeforeValidator(forms.JUMP)]
_LocalFile = Annotated[str, BeforeValidator(forms.LOCAL_FILE)]
_Seconds = Annotated[float, BeforeValidator(forms.duration(0, 86_400))]
_Lease = Annotated[float, BeforeValidator(forms.duration(30, 3600))]
_Long = Annotated[float, BeforeValidator(forms.duration(60, 2_592_000))]
_Timeout = Annotated[float, BeforeValidator(forms.duration(1, 300))]


def _empty_mapping(value: object) -> object:
    return {} if value == "" else value


def _text(value: Any) -> str:
    return forms.Form("text (quote it where YAML would read something else)", str)(value)


class Rollout(Strict):
    """How a run treats the hosts of an environment."""

    batch: Annotated[str, BeforeValidator(forms.BATCH)] = Field(
        default=model.Rollout.batch,
        description="Hosts upgraded at the same time: a number, or a percentage of all.",
    )
    parallel: Annotated[int, BeforeValidator(forms.whole(1, 256))] = Field(
        default=model.Rollout.parallel, description="Connections open at the same time, at most."
    )
    bake_seconds: _Seconds = Field(
        default=model.Rollout.bake_seconds,
        description="How long the new release is watched before the old one stops.",
    )
    lease_seconds: _Lease = Field(
        default=model.Rollout.lease_seconds, description="How long a host's lock holds without being renewed."
    )
    retain_releases: Annotated[int, BeforeValidator(forms.whole(2, 100))] = Field(
        default=model.Rollout.retain_releases, description="Releases whose images stay on the host."
    )
    connect_timeout_seconds: _Timeout = Field(
        default=model.Rollout.connect_timeout_seconds, description="How long a connection may take to open."
    )
    confirm: Annotated[bool, BeforeValidator(forms.BOOLEAN)] | None = Field(
        default=None,
        description="Ask before anything changes. Default: only where ENVIRONMENT is production.",
    )
    transfer: Annotated[model.Transfer, BeforeValidator(forms.one_of("pull", "push"))] = Field(
        default=model.Rollout.transfer,
        description="How images come to the hosts: `pull` from a registry, `push` from the workstation.",
    )
    signed_by: _LocalFile = Field(
        default=model.Rollout.signed_by,
        description="Public key (PEM) of cosign or Skopeo: an image without a signature of it is not pulled.",
    )


class Setup(Strict):
    """What `inv setup` makes of the hosts beyond what a deploy needs; all of it is off unless it is asked for."""

    firewall: Annotated[model.Firewall, BeforeValidator(forms.one_of("none", "nftables", "ufw"))] = Field(
        default=model.Preparation.firewall,
        description="Close every port but those of SSH and of the site, by this program.",
    )
    certificate: Annotated[model.Certificate, BeforeValidator(forms.one_of("files", "self-signed", "acme"))] = Field(
        default=model.Preparation.certificate,
        description="Where the certificate at SSL_CERT_PATH comes from: you put it there, made here, or by certbot.",
    )
    acme_email: Annotated[str, BeforeValidator(forms.EMAIL)] = Field(
        default=model.Preparation.acme_email, description="Whom the certificate authority writes; `acme` needs it."
    )
    acme_server: Annotated[str, BeforeValidator(forms.WEB_URL)] = Field(
        default=model.Preparation.acme_server,
        description="Directory of the certificate authority. Default: that of Let's Encrypt.",
    )
    sysctl: dict[
        Annotated[str, BeforeValidator(forms.SYSCTL_NAME)], Annotated[str, BeforeValidator(forms.SYSCTL_VALUE)]
    ] = Field(default={}, description="Kernel settings; file-max and somaxconn are raised, never lowered.")
    security_updates: Annotated[bool, BeforeValidator(forms.BOOLEAN)] = Field(
        default=model.Preparation.security_updates, description="Install security updates unattended."
    )
    rotate_logs_days: Annotated[int, BeforeValidator(forms.whole(0, 3650))] = Field(
        default=model.Preparation.rotate_logs_days,
        description="Days for which LOG_FILE, ACCESS_LOG and ERROR_LOG are kept, one file a day; 0: not rotated.",
    )
    watchdog: Annotated[bool, BeforeValidator(forms.BOOLEAN)] = Field(
        default=model.Preparation.watchdog, description="Install the watchdog, as `inv monitor.install` does."
    )
    node_exporter: Annotated[bool, BeforeValidator(forms.BOOLEAN)] = Field(
        default=model.Preparation.node_exporter,
        description="Install Debian's prometheus-node-exporter, and let the watchdog write to METRICS_DIR.",
    )
    monitoring_host: Annotated[str, BeforeValidator(forms.IP_ADDRESS)] = Field(
        default=model.Preparation.monitoring_host,
        description="IP address for which `firewall` opens node-exporter's port (9100).",
    )


class Monitoring(Strict):
    """The host that watches an environment from outside (`inv observe.install`), and when it pages."""

    address: Annotated[str, BeforeValidator(forms.ADDRESS)] = Field(
        default=model.Monitoring.address, description="IP address, host name or alias of ssh_config; install needs it."
    )
    user: _User = Field(default=model.Monitoring.user, description="Login name: root, or may use sudo.")
    port: _Port = Field(default=model.Monitoring.port, description="SSH port.")
    jump: _Jump = Field(default=model.Monitoring.jump, description="Jump host in front of it: [user@]host[:port].")
    latency_seconds: Annotated[float, BeforeValidator(forms.duration(0.001, 10))] = Field(
        default=model.Monitoring.latency_seconds,
        description="A service of which one answer in twenty takes longer is too slow.",
    )
    error_percent: Annotated[float, BeforeValidator(forms.number(0.01, 100))] = Field(
        default=model.Monitoring.error_percent, description="Share of answers of a service that may be 5xx."
    )
    lock_seconds: _Long = Field(
        default=model.Monitoring.lock_seconds, description="How long a host's lock may be held."
    )
    mixed_seconds: _Long = Field(
        default=model.Monitoring.mixed_seconds, description="How long hosts may serve different releases."
    )
    maintenance_seconds: _Long = Field(
        default=model.Monitoring.maintenance_seconds, description="How long the maintenance page may be up."
    )
    runbook: Annotated[str, BeforeValidator(forms.WEB_URL)] = Field(
        default=model.Monitoring.runbook,
        description="URL under which your team reads docs/operations.md; alerts link to their sections there.",
    )


class Host(Strict):
    """One host of an environment."""

    address: Annotated[str, BeforeValidator(forms.ADDRESS)] = Field(
        default="", description="IP address, host name or alias of ssh_config. Default: the name of the host."
    )
    port: _Port | None = Field(default=None, description="SSH port. Default: the port of the environment.")
    user: _User = Field(default="", description="Login name. Default: the user of the environment.")
    roles: tuple[_Word, ...] = Field(default=(), description="What the host is for; `--hosts` accepts a role.")
    groups: tuple[_Word, ...] = Field(default=(), description="Which hosts go together; `--hosts` accepts a group.")
    jump: _Jump = Field(default="", description="Jump host, or `none`. Default: the jump host of the environment.")
    metrics_address: Annotated[str, BeforeValidator(forms.SERVER)] = Field(
        default="", description="Where the monitoring host reaches it. Default: `address`."
    )
    env: dict[str, Annotated[str, BeforeValidator(_text)]] = Field(
        default={}, description="Keys of the env file with another value on this host."
    )


class EnvironmentEntry(Strict):
    """One environment."""

    env_file: _LocalFile = Field(default="", description="Its values. Default: deploy/NAME.env.")
    services_file: _LocalFile = Field(default="deploy/services.yaml", description="Its services.")
    known_hosts: _LocalFile = Field(
        default="",
        description="Keys of the hosts; `known_hosts` beside this file and ~/.ssh/known_hosts are read too.",
    )
    identity_file: _LocalFile = Field(default="", description="Private key. Default: the agent and ssh_config.")
    age_identity: _LocalFile = Field(
        default="",
        description="Private key that opens an env file encrypted by age. "
        "ROLLING_AGE_KEY, ROLLING_AGE_KEY_FILE, identity_file and the keys in ~/.ssh are tried too.",
    )
    recipients_file: _LocalFile = Field(
        default="", description="Public keys that an encrypted env file is for. Default: deploy/recipients/NAME.txt."
    )
    user: _User = Field(default="deploy", description="Login name; owns the containers.")
    setup_user: _User = Field(
        default=model.Target.setup_user, description="Login name for `setup`: root, or may use sudo."
    )
    port: _Port = Field(default=model.Target.port, description="SSH port.")
    jump: _Jump = Field(default="", description="Jump host in front of the hosts: [user@]host[:port].")
    rollout: Rollout = Field(default=Rollout(), description="How a run treats the hosts.")
    setup: Setup = Field(default=Setup(), description="What setup makes of the hosts.")
    monitoring: Monitoring = Field(default=Monitoring(), description="What watches the hosts from outside.")
    hosts: dict[_Word, Annotated[Host, BeforeValidator(_empty_mapping)]] = Field(
        default={}, description="The hosts, by name."
    )


class Inventory(Strict):
    """The whole file."""

    environments: dict[
        Annotated[str, BeforeValidator(forms.ENVIRONMENT_NAME)],
        Annotated[EnvironmentEntry, BeforeValidator(_empty_mapping)],
    ] = Field(description="The environments, by name.")
