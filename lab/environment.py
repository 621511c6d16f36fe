"""The files of a lab's environment: keys, inventory, env file and known_hosts.

The env file and the services file are written only once, so that operators can edit them.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from lab.files import replace_file

#: The services of a lab. Changes to deploy/services.yaml do not affect it.
_SERVICES = Path(__file__).with_name("services.yaml")

_INVENTORY = """\
# Written by `inv lab.up`; lives as long as the lab.
environments:
  {name}:
    user: deploy
    setup_user: root
    identity_file: id_ed25519
    known_hosts: known_hosts
    env_file: {name}.env
    services_file: services.yaml
    rollout:
      batch: "100%"
      parallel: 16
      bake_seconds: 3
      lease_seconds: 60
      retain_releases: 3
      connect_timeout_seconds: 5
      confirm: false
    hosts:
{hosts}"""

_SETTINGS = """\
# Written by `inv lab.up`, once; edit it as you like. Lives as long as the lab.
APP_NAME=memoryark
APP_VERSION=v1
ENVIRONMENT=lab

BACKEND_IMAGE=registry:5000/memoryark/backend:v1
FRONTEND_IMAGE=registry:5000/memoryark/frontend:v1

DOMAIN_NAME=app.lab.test
PROTOCOL=http
BACKEND_PORT=8080
FRONTEND_PORT=7001
NGINX_PORT=80
HTTPS_PORT=443

DATABASE_PATH=/home/deploy/data/memoryark.db
DATABASE_BACKUP_PATH=/home/deploy/backups/database
UPLOADS_PATH=/home/deploy/uploads
UPLOADS_BACKUP_PATH=/home/deploy/backups/uploads
CONFIG_PATH=/home/deploy/config
MAX_UPLOAD_SIZE=64MB

JWT_SECRET_KEY={secret}
ADMIN_EMAIL=admin@app.lab.test

LOG_LEVEL=info
LOG_FILE=/home/deploy/logs/app.log
ACCESS_LOG=/home/deploy/logs/access.log
ERROR_LOG=/home/deploy/logs/error.log

HEALTH_CHECK_INTERVAL=1s
HEALTH_CHECK_RETRIES=3
HEALTH_CHECK_TIMEOUT=2s
HEALTH_CHECK_START_PERIOD=10s

BACKUP_RETENTION_DAYS=7
AUTO_BACKUP_ENABLED=false

BACKEND_MEMORY_LIMIT=512MB
BACKEND_CPU_LIMIT=1.0
FRONTEND_MEMORY_LIMIT=256MB
FRONTEND_CPU_LIMIT=0.5
RESTART_POLICY=unless-stopped

ENABLE_DEBUG=false
MAINTENANCE_MODE=false
"""


def make_keys(folder: Path, name: str, hosts: Iterable[str]) -> None:
    """Generate the lab's login key and a key for each host, if they are missing."""
    new_key(folder / "id_ed25519", f"lab {name}")
    for host in hosts:
        new_key(folder / "host_keys" / host, host)


def write_environment(folder: Path, name: str, hosts: Mapping[str, str], others: Mapping[str, str]) -> None:
    """Write the files of the lab's environment. `others` are hosts that need only a known host key."""
    lines = "".join(f"      {host}: {{address: {address}}}\n" for host, address in hosts.items())
    replace_file(folder / "hosts.yaml", _INVENTORY.format(name=name, hosts=lines))
    keys = [
        f"{address} {' '.join(public_key(folder / 'host_keys' / host).read_text().split()[:2])}\n"
        for host, address in (*hosts.items(), *others.items())
    ]
    replace_file(folder / "known_hosts", "".join(keys))
    services = folder / "services.yaml"
    if not services.exists():
        replace_file(services, _SERVICES.read_text(encoding="utf-8"))
    settings = folder / f"{name}.env"
    if not settings.exists():
        replace_file(settings, _SETTINGS.format(secret=secrets.token_hex(32)), mode=0o600)


def public_key(private: Path) -> Path:
    """Return the path of the public key."""
    return private.with_name(f"{private.name}.pub")


def new_key(path: Path, comment: str) -> None:
    """Generate an ed25519 key pair, unless a complete one exists."""
    if path.exists() and public_key(path).exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}.half")
    for leftover in (half, public_key(half), path, public_key(path)):
        leftover.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(half)]
    subprocess.run(command, timeout=60, check=True)
    public_key(half).rename(public_key(path))
    half.rename(path)
