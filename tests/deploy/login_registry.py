"""A second registry on the lab's registry host, with the same images and a required login."""

from __future__ import annotations

import bcrypt

from lab.host import Host

PORT, USERNAME, PASSWORD = 5001, "robot", "a-password-of-the-lab"


def start_login_registry(registry: Host) -> None:
    """Start the registry, as the user of the other one: both write to the same storage."""
    secret = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    files = {
        "/etc/docker/registry/login.yml": "version: 0.1\nlog: {level: warn, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: /var/lib/docker-registry}}}}\nhttp: {{addr: ':{PORT}'}}\n"
        "auth: {htpasswd: {realm: lab, path: /etc/docker/registry/htpasswd}}\n",
        "/etc/docker/registry/htpasswd": f"{USERNAME}:{secret}\n",
        "/run/systemd/system/login.service": "[Service]\nUser=docker-registry\n"
        "ExecStart=/usr/bin/docker-registry serve /etc/docker/registry/login.yml\n",
    }
    for name, content in files.items():
        registry.sh(f"cat >{name} <<'END'\n{content}END")
    registry.sh("systemctl daemon-reload; systemctl start login")


def stop_login_registry(registry: Host) -> None:
    registry.sh("systemctl stop login")
