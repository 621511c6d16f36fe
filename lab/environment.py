"""The files that make a lab an environment: inventory, env file, known_hosts. It contacts nothing.

Files are written whole or not at all. The env file is written once and kept, so that a person may edit it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

_INVENTORY = """\
# Written by `inv lab.up`; lives as long as the lab.
environments:
  {name}:
    user: deploy
    setup_user: root
    identity_file: id_ed25519
    known_hosts: known_hosts
    env_file: {name}.env
    services_file: ../../deploy/services.yaml
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


def write_environment(folder: Path, name: str, hosts: Mapping[str, str], keys: Mapping[str, str]) -> None:
    """Write the lab's environment: `hosts` maps names to addresses, `keys` addresses to public host keys."""
    lines = "".join(f"      {host}: {{address: {address}}}\n" for host, address in hosts.items())
    _replace(folder / "hosts.yaml", _INVENTORY.format(name=name, hosts=lines))
    _replace(folder / "known_hosts", "".join(f"{address} {key}\n" for address, key in keys.items()))
    settings = folder / f"{name}.env"
    if not settings.exists():
        _replace(settings, _SETTINGS.format(secret=secrets.token_hex(32)), mode=0o600)


def _replace(path: Path, text: str, mode: int = 0o644) -> None:
    if path.exists() and path.read_text() == text:
        return
    partial = path.with_name(f"{path.name}.new")
    partial.touch(mode=mode)
    partial.chmod(mode)
    partial.write_text(text)
    partial.rename(path)
