"""A whole project whose every value may be spoiled: what is refused is put right, what is left is what was accepted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import BaseModel

from rolling_upgrade import config
from rolling_upgrade.config.commands import Hooks, Release
from rolling_upgrade.config.containers import Limits, Mount, Secret, Variable, Volume
from rolling_upgrade.config.inventory import EnvironmentEntry, Host, Inventory, Monitoring, RolloutPolicy, Setup
from rolling_upgrade.config.jobs import Job
from rolling_upgrade.config.services import (
    Build,
    Building,
    Drain,
    FullChain,
    Gate,
    Health,
    Service,
    Services,
    Suite,
)
from rolling_upgrade.config.settings import Settings
from rolling_upgrade.config.site import Assets, Hsts, Route, Site
from rolling_upgrade.config.workers import Ready
from rolling_upgrade.engine.model import HOOKS, Environment
from rolling_upgrade.errors import ConfigError

#: Good values of every setting: a new one needs its own here, and in ARRIVES where it stays a text.
SEEDS: dict[str, tuple[str, ...]] = {
    "APP_NAME": ("shop", "my-shop2"),
    "APP_VERSION": ("2.0.1", "v1_a"),
    "ENVIRONMENT": ("staging", "Test_1"),
    "DOMAIN_NAME": ("shop.example.org", "a.b"),
    "PROTOCOL": ("http", "https"),
    "NGINX_PORT": ("80", "8088"),
    "HTTPS_PORT": ("443", "8443"),
    "SSL_CERT_PATH": ("/srv/tls/cert.pem", "/srv/tls/żółć@1.pem"),
    "SSL_KEY_PATH": ("/srv/tls/key.pem",),
    "SSL_CHAIN_PATH": ("/srv/tls/chain.pem",),
    "REGISTRY": ("registry.test:5000", "docker.io"),
    "REGISTRY_USERNAME": ("robot", "it's me"),
    "REGISTRY_PASSWORD": ("pass word'1", "-p$x"),
    "DATABASE_PATH": ("/srv/shop/data/shop.db", "/srv/a+b/c=d.db"),
    "DATABASE_BACKUP_PATH": ("/srv/shop/backups", "/srv/b@ckups/"),
    "UPLOADS_PATH": ("/srv/shop/uploads",),
    "UPLOADS_BACKUP_PATH": ("/srv/shop/upload-backups",),
    "CONFIG_PATH": ("/srv/shop/config",),
    "MAX_UPLOAD_SIZE": ("100MB", "1.5GiB"),
    "DATABASE_URL": ("", "postgresql://ark:pa%27ss@db.test:5432/ark?sslmode=require", "sqlite:////srv/x.db"),
    "MAINTENANCE_MODE": ("false", "true"),
    "LOG_FILE": ("/srv/shop/logs/app.log",),
    "ACCESS_LOG": ("/srv/shop/access/access.log",),
    "ERROR_LOG": ("/srv/shop/errors/error.log",),
    "HEALTH_CHECK_INTERVAL": ("30s",),
    "HEALTH_CHECK_TIMEOUT": ("5s", "500ms"),
    "HEALTH_CHECK_START_PERIOD": ("60s",),
    "HEALTH_CHECK_RETRIES": ("3",),
    "RESTART_POLICY": ("on-failure", "on-failure:3", "always"),
    "MIN_FREE_PERCENT": ("10",),
    "MAX_MEMORY_PERCENT": ("90",),
    "MIN_CERTIFICATE_DAYS": ("14",),
    "MAX_CLOCK_OFFSET": ("5s",),
    "MAX_BACKUP_AGE": ("26h",),
    "AUTO_RECOVERY_ENABLED": ("true",),
    "RECOVERY_LIMIT": ("3",),
    "RECOVERY_WINDOW": ("10m",),
    "FRESH_RELEASE": ("10m",),
    "METRICS_DIR": ("/var/lib/prometheus/node-exporter", "/srv/m@trics", "none"),
    "REQUEST_METRICS": ("true", "false"),
    "BACKUP_RETENTION_DAYS": ("30",),
    "AUTO_BACKUP_ENABLED": ("true", "false"),
    "BACKUP_SCHEDULE": ("0 2 * * *", "*/15 1-5 1,15 jan mon"),
    "SLACK_WEBHOOK": ("https://hooks.example.org/services/T1/B2/q7Zk1m9pX2vB8nW4",),
    "WEBHOOK_URL": ("http://ann:pa'ss@hook.test:8080/x?y='z'#f",),
    "SMTP_HOST": ("mail.example.org", "2001:db8::1"),
    "SMTP_PORT": ("587",),
    "SMTP_USER": ("ark", "ark'$(x)"),
    "SMTP_PASSWORD": ("pass word'1",),
    "SMTP_FROM": ("ark@example.org", "The Ark, née Ärk <ark@example.org>", 'A "B" C <a@b.c>'),
    "SMTP_TO": ("ann@example.org", "Ann <ann@example.org>, 繁體 <bob@example.org>"),
    "SMTP_SECURITY": ("starttls", "tls"),
    "NOTIFY_LANGUAGE": ("en", "zh-TW"),
    "NOTIFY_SLACK": ("info",),
    "NOTIFY_MAIL": ("warning",),
    "NOTIFY_WEBHOOK": ("off",),
    "NOTIFY_REPEAT": ("6h",),
    "NGINX_IMAGE": ("docker.io/library/nginx:1.27",),
    "NGINX_MEMORY_LIMIT": ("256MB",),
    "NGINX_CPU_LIMIT": ("0.5",),
}  # fmt: skip

#: Valid values of the settings that services.yaml of the project below names.
SERVICE_SEEDS: dict[str, tuple[str, ...]] = {
    "BACKEND_IMAGE": ("ghcr.io/a__b/c.d-e", "registry.test:5000/shop/backend:v2"),
    "BACKEND_PORT": ("8080",),
    "BACKEND_MEMORY_LIMIT": ("512MB",),
    "BACKEND_CPU_LIMIT": ("1.5",),
    "OWN_SECRET": ("two\nlines", "it's $(one)"),
    "OWN_TEXT": ("anything at all", ""),
    "JWT_SECRET_KEY": ("correct horse 'battery'", "$(x)"),
    "REDIS_URL": ("redis://:se'cret@cache.test:6379/0",),
    "LOG_LEVEL": ("info", "WARN"),
}
#: Keys of services that containers get as they are.
PASSED = ("JWT_SECRET_KEY", "REDIS_URL", "LOG_LEVEL")

#: The place where each text setting has to arrive, see `Outcome.where`. Other settings become numbers or choices.
ARRIVES: dict[str, str] = {
    "APP_NAME": "shell",
    "APP_VERSION": "tag",
    "ENVIRONMENT": "shell",
    "DOMAIN_NAME": "site",
    "PROTOCOL": "list",
    "SSL_CERT_PATH": "certificate of https",
    "SSL_KEY_PATH": "site of https",
    "SSL_CHAIN_PATH": "certificate of https",
    "REGISTRY": "shell",
    "REGISTRY_USERNAME": "shell",
    "REGISTRY_PASSWORD": "login",
    "DATABASE_PATH": "shell",
    "DATABASE_BACKUP_PATH": "shell",
    "UPLOADS_PATH": "shell",
    "UPLOADS_BACKUP_PATH": "shell",
    "CONFIG_PATH": "shell",
    "DATABASE_URL": "container",
    "METRICS_DIR": "watchdog metrics",
    "LOG_FILE": "directory",
    "ACCESS_LOG": "directory",
    "ERROR_LOG": "directory",
    "RESTART_POLICY": "list",
    "BACKUP_SCHEDULE": "timer",
    "SLACK_WEBHOOK": "watchdog",
    "WEBHOOK_URL": "watchdog",
    "SMTP_HOST": "watchdog",
    "SMTP_USER": "watchdog",
    "SMTP_PASSWORD": "watchdog",
    "SMTP_FROM": "mail",
    "SMTP_TO": "mail",
    "SMTP_SECURITY": "list",
    "NOTIFY_LANGUAGE": "list",
    "NOTIFY_SLACK": "list",
    "NOTIFY_MAIL": "list",
    "NOTIFY_WEBHOOK": "list",
    "NGINX_IMAGE": "nowhere",
}

#: Valid values of every field of the two YAML files, by model and name.
FIELDS: dict[str, tuple[Any, ...]] = {
    "Gate.passes": ("3",),
    "Gate.interval_seconds": ("1", "500ms"),
    "Gate.deadline_seconds": ("60",),
    "Gate.running_seconds": ("10",),
    "Ready.command": ("check up", "it\\'s $(up)"),
    "Ready.timeout_seconds": ("10",),
    "Drain.deadline_seconds": ("15",),
    "Drain.stop_seconds": ("10",),
    "Route.prefix": ("/", "/api/", "/a.b/c~d-e_f"),
    "Route.stream": ("true", "false"),
    "Variable.name": ("OWN_TEXT",),
    "Variable.key": ("OWN_TEXT",),
    "Variable.literal": ("text", "it's a value", "a\tb"),
    "Route.domains": ("DOMAIN_NAME", "${DOMAIN_NAME}"),
    "Route.timeout": ("90s", "1h"),
    "Route.max_body": ("1GB", "0"),
    "Route.strip_prefix": ("false",),
    "Route.basic_auth": ("OWN_USERS",),
    "Route.request_headers": ("it's \"quoted\"; {x}", "${OWN_TEXT}"),
    "Route.response_headers": ("DENY", "default-src 'self'; script-src #x"),
    "Assets.path": ("/app/public/assets",),
    "Assets.prefix": ("/of-every-domain/assets", "/of-every-domain/a.b"),
    "Site.domains": ("api.example.org", "DOMAIN_NAME"),
    "Site.redirects": ("DOMAIN_NAME", "${DOMAIN_NAME}"),
    "Site.trusted_proxies": ("cloudflare", "192.0.2.0/24", "2001:db8::/32"),
    "Site.http2": ("true", "false"),
    "Site.gzip": ("true", "false"),
    "Site.max_header_size": ("32KB", "64K"),
    "Hsts.max_age": ("1h", "365d"),
    "Hsts.include_subdomains": ("true",),
    "Hsts.preload": ("true",),
    "Mount.source": ("OWN_PATH",),
    "Mount.target": ("/app/own", "/app/o+w=n"),
    "Mount.parent": ("false",),
    "Mount.read_only": ("true",),
    "Mount.optional": ("true",),
    "Mount.owner": ("1000", "999:998"),
    "Limits.memory": ("BACKEND_MEMORY_LIMIT",),
    "Limits.cpus": ("BACKEND_CPU_LIMIT",),
    "Service.name": ("backend", "back-end2"),
    "Service.image": ("BACKEND_IMAGE",),
    "Service.container_port": ("8080",),
    "Service.command": ("serve --now", "serve 'a b' \"$HOME\""),
    "Service.entrypoint": ("run", "run 'a \"b\"'"),
    "Service.handoff": ("overlap", "exclusive"),
    "Service.port": ("BACKEND_PORT",),
    "Service.default_port": ("8080",),
    "Health.path": ("/health", "/api/v1/health_check"),
    "Health.host": ("api.example.org", "192.0.2.7:8443"),
    "Health.scheme": ("https", "http"),
    "Health.headers": ("it's a $(header)", 'Bearer "own"\\'),
    "Service.alias": ("backend", "api"),
    "Service.start": ("together", "after_previous"),
    "Service.required": ("JWT_SECRET_KEY",),
    "Service.cap_add": ("SYS_PTRACE", "cap_ipc_lock"),
    "Service.cap_drop": ("NET_RAW", "ALL"),
    "Service.no_new_privileges": ("true",),
    "Service.pids_limit": ("2048",),
    "Service.log_driver": ("k8s-file", "journald"),
    "Service.log_max_size": ("50MB", "1MB"),
    "Secret.source": ("OWN_SECRET",),
    "Secret.target": ("/run/secrets/own", "/app/o+w=n.pem"),
    "Service.roles": ("web",),
    "Service.user": ("app", "1000:1000"),
    "Service.tmpfs": ("/cache", "/cache:size=64MB,mode=1777"),
    "Service.shm_size": ("64MB",),
    "Service.read_only": ("true",),
    "Service.devices": ("/dev/fuse", "/dev/tty1:/dev/modem:rw", "nvidia.com/gpu=all"),
    "Service.ulimits": ("nofile=1024:4096", "core=-1"),
    "Service.add_host": ("db:10.0.0.5", "db.test:2001:db8::5"),
    "Service.labels": ("team=web", "com.acme/team=it's $(us)"),
    "Service.init": ("true",),
    "Volume.name": ("media", "Own_volume.1"),
    "Volume.target": ("/app/media", "/app/m@dia"),
    "Volume.read_only": ("false", "true"),
    "Build.context": ("app", "it's an app"),
    "Build.file": ("Containerfile", "deep/Own file"),
    "Build.target": ("runtime", "a.b_c-d"),
    "Build.debug_target": ("builder",),
    "Build.args": ("1.22", "it's $(an) argument"),
    "Build.cache": ("true", "false"),
    "Build.squash": ("false", "true"),
    "Build.scan": ("trivy image", "it's $(a) scan"),
    "Building.engine": ("podman", "sudo -u 'a b' podman"),
    "Building.cache": ("true",),
    "Building.squash": ("false",),
    "Building.scan": ("trivy image",),
    "Building.pass_env": ("TRIVY_CACHE_DIR",),
    "Suite.kind": ("unit", "load"),
    "Suite.command": ("make test", "echo 'a' && $(b)"),
    "Suite.name": ("fast-ones", "slow.1"),
    "Suite.folder": (".", "it's here"),
    "Suite.timeout_seconds": ("30m",),
    "Suite.env": ("it's a value",),
    "Suite.pass_env": ("JAVA_HOME", "_x1"),
    "Services.reports": ("reports", "my 'reports'"),
    "Job.name": ("nightly", "clean-up2"),
    "Job.service": ("backend",),
    "Job.schedule": ("0 3 * * *", "*/5 1-5 * * mon"),
    "Job.command": ("./clean --all", "echo 'a' && $(b)"),
    "Job.entrypoint": ("it's an entrypoint",),
    "Job.hosts": ("one", "all"),
    "Job.timeout_seconds": ("1h", "90"),
    "Job.overlap": ("skip", "replace"),
    "FullChain.service": ("backend",),
    "Release.service": ("backend",),
    "Release.command": ("migrate now", "echo 'a' && $(b)"),
    "Release.timeout_seconds": ("15m",),
    "Hooks.timeout_seconds": ("5m",),
    "Release.entrypoint": ("entry", "it's an entry"),
    "FullChain.path": ("/api/health",),
    "RolloutPolicy.batch": ("100%", "2"),
    "RolloutPolicy.parallel": ("16",),
    "RolloutPolicy.bake_seconds": ("10",),
    "RolloutPolicy.lease_seconds": ("120",),
    "RolloutPolicy.retain_releases": ("3",),
    "RolloutPolicy.connect_timeout_seconds": ("10",),
    "RolloutPolicy.confirm": ("false",),
    "RolloutPolicy.transfer": ("pull", "push"),
    "RolloutPolicy.signed_by": ("release.pub",),
    "Setup.firewall": ("nftables", "ufw", "none"),
    "Setup.certificate": ("files", "acme", "self-signed"),
    "Setup.acme_email": ("ann@lab.test", "o'ann+a@lab.test"),
    "Setup.acme_server": ("https://ca.test/dir", "https://ca.test:14000/a?b=c&d"),
    "Setup.sysctl": ("10", "4096 87380 6291456"),
    "Setup.security_updates": ("true",),
    "Setup.rotate_logs_days": ("14",),
    "Setup.watchdog": ("true",),
    "Setup.node_exporter": ("true",),
    "Setup.monitoring_host": ("192.0.2.9", "2001:db8::9"),
    "Monitoring.address": ("192.0.2.9", "2001:db8::9", "watch.example.org"),
    "Monitoring.user": ("root", "admin"),
    "Monitoring.port": ("22",),
    "Monitoring.jump": ("none", "ann@bastion.test:2222"),
    "Monitoring.latency_seconds": ("1", "500ms"),
    "Monitoring.error_percent": ("5",),
    "Monitoring.lock_seconds": ("1h",),
    "Monitoring.mixed_seconds": ("30m",),
    "Monitoring.maintenance_seconds": ("4h",),
    "Monitoring.runbook": ("https://git.example.org/ops/operations.md?a='b'&c",),
    "Host.metrics_address": ("192.0.2.11", "2001:db8::7", "web1.example.org"),
    "Host.address": ("192.0.2.11", "2001:db8::7", "web1.example.org"),
    "Host.port": ("22", "2222"),
    "Host.user": ("deploy", "_svc-1"),
    "Host.roles": ("web",),
    "Host.groups": ("canary",),
    "Host.jump": ("none", "ann@bastion.test:2222"),
    "Host.env": ("it's a value", "two\nlines"),
    "EnvironmentEntry.env_file": ("demo.env",),
    "EnvironmentEntry.env_command_timeout_seconds": ("2m",),
    "EnvironmentEntry.services_file": ("services.yaml",),
    "EnvironmentEntry.known_hosts": ("known_hosts", "my known 'hosts'"),
    "EnvironmentEntry.identity_file": ("key",),
    "EnvironmentEntry.age_identity": ("key", "my 'key'"),
    "EnvironmentEntry.recipients_file": ("recipients.txt", "who 'may'"),
    "EnvironmentEntry.user": ("deploy",),
    "EnvironmentEntry.setup_user": ("root", "admin"),
    "EnvironmentEntry.port": ("22",),
    "EnvironmentEntry.jump": ("bastion.test",),
}  # fmt: skip

#: Commands that this workstation executes as they are. See tests/config/test_env_command.py and test_hooks.py.
EXECUTED = frozenset({"EnvironmentEntry.env_command", *(f"Hooks.{name}" for name in HOOKS)})

MODELS: tuple[type[BaseModel], ...] = (
    Health, Gate, Ready, Drain, Variable, Route, Assets, Site, Hsts, Mount, Volume, Secret, Limits, Build, Service,
    FullChain, Release, Hooks, Job, Building, Suite, Services,
    RolloutPolicy, Setup, Monitoring, Host, EnvironmentEntry, Inventory,
)  # fmt: skip

#: The settings of a project that passes all its env keys to the container.
BASE = {key: seeds[0] for key, seeds in (SEEDS | SERVICE_SEEDS).items()} | {
    "OWN_PATH": "/srv/shop/own",
    "OWN_USERS": "$6$salt$" + "a" * 86,
}
_CONTAINER = (*PASSED, *(key for key, where in ARRIVES.items() if where == "container"))


def structural(annotation: Any) -> bool:
    """Return whether a field contains other models, whose fields are listed instead."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return get_origin(annotation) is not None and any(structural(argument) for argument in get_args(annotation))


def fields_of_the_models() -> Iterator[str]:
    """Yield every field of the YAML files with a value."""
    for model in MODELS:
        for name, info in model.model_fields.items():
            if not structural(info.annotation) and f"{model.__name__}.{name}" not in EXECUTED:
                yield f"{model.__name__}.{name}"


def text_settings() -> set[str]:
    """Return the settings whose value is a text after validation."""
    return {name.upper() for name, info in Settings.model_fields.items() if info.annotation in (str, object)}


#: A public key for image signatures.
PUBLIC = (
    ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
)


@dataclass
class Project:
    """The three files of one environment; `env` and `fields` have their values."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: dict(BASE))
    fields: dict[str, Any] = field(default_factory=lambda: {name: seeds[0] for name, seeds in FIELDS.items()})

    def write(self) -> None:
        """Write the files with quoted values."""
        self.root.mkdir(exist_ok=True)
        lines = (f"{key}={_in_quotes(value)}\n" for key, value in self.env.items())
        (self.root / "demo.env").write_bytes("".join(lines).encode(errors="surrogatepass"))
        (self.root / "key").touch()
        (self.root / "release.pub").write_bytes(PUBLIC)
        for name, content in (("hosts.yaml", self._hosts()), ("services.yaml", self._services())):
            (self.root / name).write_text(yaml.dump(content, Dumper=yaml.CSafeDumper), "utf-8")

    def load(self) -> Environment:
        """Write and load the project. Raises ConfigError."""
        self.write()
        return config.load("demo", root=self.root)

    def accepted(self) -> Environment:
        """Load the project, and replace refused values with valid ones until it is accepted."""
        for _ in range(12):
            try:
                return self.load()
            except ConfigError as error:
                self._replace_refused(error)
        raise AssertionError("values are refused again and again")

    def _replace_refused(self, error: ConfigError) -> None:
        before = (dict(self.env), dict(self.fields))
        for issue in error.issues:
            word = issue.path.rpartition(".")[2].partition("[")[0]
            if issue.path in self.env:
                self.env[issue.path] = BASE[issue.path]
            for name in self.fields:
                own = name.rpartition(".")[2]
                if own == word or f".{own}" in issue.path or own in issue.path.replace("[", ".").split("."):
                    self.fields[name] = FIELDS[name][0]
        if (self.env, self.fields) == before:
            self.fields = {name: seeds[0] for name, seeds in FIELDS.items()}
            self.env = dict(BASE) if self.env != BASE and not error.issues else self.env
            if (self.env, self.fields) == before:
                self.env = dict(BASE)

    def _of(self, model: str) -> dict[str, Any]:
        return {name.partition(".")[2]: value for name, value in self.fields.items() if name.startswith(f"{model}.")}

    def _services(self) -> dict[str, Any]:
        service = self._of("Service")
        listed = [key for key in _CONTAINER if key != "JWT_SECRET_KEY"]
        variable = self._of("Variable")
        literal = {"OWN_LITERAL": {"value": variable["literal"].replace("${", "$${")}}
        service |= {"env": [{variable["name"]: variable["key"]}, literal, *listed]}
        service |= {"required": [service["required"]], "gate": self._of("Gate"), "ready": self._of("Ready")}
        service |= {name: [service[name]] for name in ("cap_add", "cap_drop", "roles")}
        health = self._of("Health")
        service["health"] = health | {"headers": {"X-Own": health["headers"].replace("${", "$${")}}
        paths = [
            {"source": "DATABASE_PATH", "target": "/app/data", "parent": "true"},
            {"source": "UPLOADS_PATH", "target": "/app/uploads"},
            {"source": "CONFIG_PATH", "target": "/app/config"},
        ]
        service |= {"drain": self._of("Drain"), "routes": [self._route()], "limits": self._of("Limits")}
        service["routes"].append({"prefix": "/of-every-domain/"})
        service["assets"] = self._of("Assets")
        service["mounts"] = [self._of("Mount"), *paths]
        service["secrets"] = [self._of("Secret")]
        service["volumes"] = [self._of("Volume")]
        build, suite = self._of("Build"), self._of("Suite")
        service["build"] = build | {"args": {"OWN_ARG": build["args"]}}
        own = self._of("Building")
        own["pass_env"] = [own["pass_env"]]
        release = self._of("Release")
        release |= {name: ["run", release[name]] for name in ("command", "entrypoint")}
        content = {"full_chain": self._of("FullChain"), "services": [service], "building": own, "release": release}
        content["hooks"] = self._of("Hooks")
        content["site"] = self._site()
        suites = [suite | {"env": {"OWN_TEXT": suite["env"]}, "pass_env": [suite["pass_env"]]}]
        return content | {"suites": suites, "jobs": [self._of("Job")], "reports": self.fields["Services.reports"]}

    def _route(self) -> dict[str, Any]:
        route = self._of("Route")
        headers = {name: {"X-Own": route[name]} for name in ("request_headers", "response_headers")}
        return route | headers | {"domains": [route["domains"]], "basic_auth": {"ann": route["basic_auth"]}}

    def _site(self) -> dict[str, Any]:
        site = self._of("Site") | {"hsts": self._of("Hsts")}
        redirects = {"www.example.org": site["redirects"]}
        return site | {
            "domains": [site["domains"]],
            "redirects": redirects,
            "trusted_proxies": [site["trusted_proxies"]],
        }

    def _hosts(self) -> dict[str, Any]:
        host = self._of("Host")
        host |= {"roles": [host["roles"]], "groups": [host["groups"]], "env": {"OWN_TEXT": host["env"]}}
        setup = self._of("Setup")
        setup["sysctl"] = {"vm.swappiness": setup["sysctl"], "net.core.somaxconn": "1024"}
        entry = self._of("EnvironmentEntry") | {"rollout": self._of("RolloutPolicy"), "setup": setup}
        entry["monitoring"] = self._of("Monitoring")
        entry["hosts"] = {"web1": host}
        return {"environments": {"demo": entry}}


def _in_quotes(value: str) -> str:
    return "'" + re.sub(r"(['\\])", r"\\\1", value) + "'"
