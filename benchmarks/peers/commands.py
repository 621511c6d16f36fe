"""The commands of the upgrade: the pyinfra script runs them over SSH, `by_hand` runs them on the host.

The playbook has the same commands, and modules of Ansible where there are any. This module runs in pyinfra's
virtual environment too: standard library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent
SITE: Mapping[str, Any] = json.loads((DIRECTORY / "services.json").read_text())
SERVICES: Sequence[Mapping[str, Any]] = SITE["services"]
UPSTREAMS: str = SITE["upstreams"]
_OTHER = {"blue": "green", "green": "blue"}
_HEALTHY = """\
passes=0
for _ in $(seq 100); do
    if curl --fail --silent --output /dev/null --max-time 2 {url}; then passes=$((passes + 1)); else passes=0; fi
    [ "$passes" -lt 2 ] || exit 0
    sleep 0.3
done
exit 1
"""
_SWITCHED = """\
for _ in $(seq 30); do
    answer=$(curl --fail --silent --max-time 2 --header Host:{domain} http://127.0.0.1{path}) || answer=
    case $answer in *'"version": "{version}"'*) exit 0 ;; esac
    sleep 0.3
done
exit 1
"""


def colors(upstreams: str) -> tuple[str, str]:
    """Return the active and the idle color, from the text of the upstream file. Raises ValueError."""
    found = re.search(r"^# color: (blue|green)$", upstreams, re.MULTILINE)
    if not found:
        raise ValueError(f"{UPSTREAMS} names no color")
    return found[1], _OTHER[found[1]]


def pull(service: Mapping[str, Any], version: str) -> str:
    """Pull the image."""
    return f"podman pull --quiet {service['image']}:{version}"


def start(service: Mapping[str, Any], color: str, version: str) -> str:
    """Start the container of a color, and replace a stopped one."""
    return (
        f"podman run --detach --replace --name {_container(service, color)}"
        f" --network peers --network-alias {service['name']}"
        f" --publish 127.0.0.1:{service['ports'][color]}:{service['container_port']} --restart unless-stopped"
        f" {service['options']} {service['image']}:{version}"
    )


def wait_until_healthy(service: Mapping[str, Any], color: str) -> str:
    """Wait for two good answers of the container in a row, 0.3 s apart."""
    return _HEALTHY.format(url=f"http://127.0.0.1:{service['ports'][color]}{service['health']}")


def wait_until_switched(service: Mapping[str, Any], version: str) -> str:
    """Wait until this version answers through Nginx."""
    return _SWITCHED.format(domain=SITE["domain"], path=service["health"], version=version)


def stop(color: str) -> str:
    """Stop the containers of a color and keep them."""
    return "podman stop --ignore --time 5 " + " ".join(_container(service, color) for service in SERVICES)


def _container(service: Mapping[str, Any], color: str) -> str:
    return f"peers-{service['name']}-{color}"
