"""Keys that Compose and Kamal have and this project has under another name, with their counterparts here.

Only unknown keys are looked up, so a key that a model gains has no entry any more.
"""

from __future__ import annotations

_ROUTES = "`routes` of a service for its paths, `site` for domains, and PROTOCOL and SSL_CERT_PATH in the env file"
_HOSTS = "`environments.NAME.hosts` in hosts.yaml"
_NETWORK = "no key: all services share one network, and reach each other by name"

_SERVICE = {
    "environment": "`env`: NAME, NAME: KEY or NAME: {value: text}",
    "env_file": "`env` with the names of the keys; the env file is deploy/ENVIRONMENT.env",
    "configs": "`mounts`",
    "ports": "`container_port`, and `routes` for public paths",
    "expose": "`container_port`",
    "volume": "`mounts`: SOURCE:TARGET",
    "healthcheck": "`health` for a path, `ready` for a command, and `gate`",
    "depends_on": "the order of the list, and `start: after_previous`",
    "links": _NETWORK,
    "networks": _NETWORK,
    "network_mode": _NETWORK,
    "proxy": "`routes` for paths, and `health`",
    "host": _HOSTS,
    "hosts": f"`roles`, and {_HOSTS}",
    "role": "`roles`",
    "cmd": "`command`",
    "cron": "`jobs`: [{name: …, service: …, schedule: …, command: …}]",
    "options": "its entries as keys of their own, such as `shm_size`; memory and cpus below `limits`",
    "asset_path": "`assets`: {path: /app/public/assets, prefix: /assets}",
    "deploy": "`limits`, and `rollout` in hosts.yaml",
    "resources": "`limits`: {memory: 512MB, cpus: 0.5}",
    "mem_limit": "`limits`: {memory: 512MB}",
    "memory": "`limits`: {memory: 512MB}",
    "cpus": "`limits`: {cpus: 0.5}",
    "restart": "RESTART_POLICY in the env file",
    "logging": "`log_driver` and `log_max_size`",
    "stop_grace_period": "`drain`: {stop_seconds: 10}",
    "container_name": "`name`",
    "hostname": "`alias`",
    "security_opt": "`no_new_privileges`",
    "privileged": "`cap_add`",
    "scale": "more hosts in hosts.yaml",
    "replicas": "more hosts in hosts.yaml",
    "extra_hosts": "`add_host`",
    "dockerfile": "`build`: {context: ., file: Dockerfile}",
    "profiles": "no key: every service is deployed; `roles` selects its hosts",
}

_TOP = {
    "version": "no key: leave it out",
    "name": "APP_NAME in the env file",
    "service": "APP_NAME in the env file, and `services`",
    "image": "`image` of a service",
    "servers": f"`services`, and {_HOSTS}",
    "hosts": _HOSTS,
    "proxy": _ROUTES,
    "traefik": _ROUTES,
    "registry": "REGISTRY, REGISTRY_USERNAME and REGISTRY_PASSWORD in the env file",
    "builder": "`building`, and `build` of a service",
    "env": "`env` of each service; a YAML anchor under `x-env` shares it",
    "environment": "`env` of each service; a YAML anchor under `x-env` shares it",
    "volumes": "`volumes` or `mounts` of a service",
    "networks": _NETWORK,
    "secrets": "`secrets` or `env` of a service; the env file may be encrypted",
    "configs": "`mounts` of a service",
    "ssh": "`user`, `port` and `jump` in hosts.yaml",
    "boot": "`rollout`: {batch: 1} in hosts.yaml",
    "healthcheck": "`health` of a service",
    "retain_containers": "`rollout`: {retain_releases: 3} in hosts.yaml",
    "asset_path": "`assets` of a service: {path: /app/public/assets, prefix: /assets}",
    "logging": "`log_driver` and `log_max_size` of a service",
    "aliases": "Invoke tasks of your own in tasks.py",
    "include": "one file; YAML anchors share its parts",
}

_ENVIRONMENT = {
    "servers": "`hosts`: {web1: {address: 192.0.2.11}}",
    "host": "`hosts`: {web1: {address: 192.0.2.11}}",
    "roles": "`hosts`: {web1: {roles: [web]}}",
    "ssh": "`user`, `port` and `jump`",
    "env": "the env file, and `hosts`: {web1: {env: {KEY: value}}}",
    "boot": "`rollout`: {batch: 1}",
    "services": "deploy/services.yaml",
    "proxy": "`routes` in deploy/services.yaml",
}

_HOST = {
    "host": "`address`",
    "hostname": "`address`",
    "ip": "`address`",
    "role": "`roles`",
    "tags": "`groups`",
    "ssh_port": "`port`",
}

_ACCESSORY = {
    **{key: _SERVICE[key] for key in ("environment", "env_file", "networks", "links", "restart", "cmd", "mem_limit")},
    "healthcheck": "`health`: a command",
    "port": "`ports`",
    "container_port": "`ports`",
    "directories": "`volumes` or `mounts`",
    "files": "`mounts`",
    "depends_on": "no key: accessories start at boot, before the services",
    "container_name": "`name`",
}

_KEYS: dict[str, dict[str, str]] = {
    "Accessory": _ACCESSORY,
    "Service": _SERVICE,
    "Services": _TOP,
    "Job": {"cmd": "`command`", "cron": "`schedule`", "image": "`service`, whose image the job gets"},
    "EnvironmentEntry": _ENVIRONMENT,
    "Inventory": {"hosts": "`environments`: {production: {hosts: …}}", "servers": "`environments`"},
    "Host": _HOST,
}


def counterpart(model: str, key: str) -> str:
    """Return what this project has in place of a key of Compose or Kamal, empty for any other key."""
    return _KEYS.get(model, {}).get(key, "")
