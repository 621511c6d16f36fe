"""The two applications on the lab host: that of this product, and that of Ansible, pyinfra and the hand.

Both have the images of the lab's sample application. The second has containers, ports, a domain and an Nginx site of
its own, so that neither tool touches what another one manages.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.peers import commands
from lab.host import Host
from rolling_upgrade.engine.shell import quote

VERSIONS = ("v1", "v2")
_HEALTH = {service["name"]: service["health"] for service in commands.SERVICES}
_RUNNING = "podman ps --format '{{.Names}}'"
_SITE = "/etc/nginx/conf.d/peers.conf"
#: Both tools' documentation assumes a user who may become root without a password.
_SUDO = "deploy ALL=(root) NOPASSWD: ALL"
_SECONDS = 10.0


@dataclass(frozen=True)
class State:
    """Which color of each service runs, and which version answers through Nginx."""

    colors: Mapping[str, str]
    versions: Mapping[str, str]

    @property
    def next_version(self) -> str:
        """The version to upgrade to: every upgrade changes it. Raises SystemExit without exactly one version."""
        current = set(self.versions.values())
        if len(current) != 1 or not current <= set(VERSIONS):
            raise SystemExit(f"the application has no version to upgrade from: {self}")
        return VERSIONS[1 - VERSIONS.index(current.pop())]

    def fault(self, before: State, version: str) -> str:
        """Return why this is not the state after an upgrade to the version, or ''."""
        if set(self.versions.values()) != {version}:
            return f"Nginx answers with {dict(self.versions)}, not with {version} of both services"
        for name in _HEALTH:
            if (before.colors.get(name), self.colors.get(name)) not in (("blue", "green"), ("green", "blue")):
                return f"{name} ran as {before.colors.get(name)} before, and as {self.colors.get(name)} now"
        return ""


@dataclass(frozen=True)
class Deployment:
    """An application on the host, by the prefix of its containers and its domain."""

    host: Host
    name: str
    domain: str

    def observe(self) -> State:
        """Return the running colors and the versions that visitors get."""
        found: dict[str, list[str]] = {service: [] for service in _HEALTH}
        for container in self.host.sh(_RUNNING, user="deploy").stdout.split():
            for service, running in found.items():
                if container.startswith(f"{self.name}-{service}-"):
                    running.append(container.rpartition("-")[2])
        colors = {service: "+".join(sorted(running)) or "stopped" for service, running in found.items()}
        return State(colors, {service: self._version(path) for service, path in _HEALTH.items()})

    def _version(self, path: str) -> str:
        """Return the version in an answer with status 200, or what came instead."""
        connection = http.client.HTTPConnection(self.host.address, 80, timeout=_SECONDS)
        try:
            connection.request("GET", path, headers={"Host": self.domain})
            response = connection.getresponse()
            body = response.read()
            return str(json.loads(body)["version"]) if response.status == 200 else f"status {response.status}"
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            connection.close()


def prepare(host: Host) -> None:
    """Install the second application's site, network and sudo rule. No container runs yet."""
    host.sh(f"printf '%s\\n' {quote(_SUDO)} >/etc/sudoers.d/peers && chmod 440 /etc/sudoers.d/peers")
    host.sh(f"printf %s {quote(upstreams('green'))} >{commands.UPSTREAMS}; printf %s {quote(_site())} >{_SITE}")
    host.sh("mkdir -p ~/peers && podman network create --ignore peers", user="deploy")
    host.sh("nginx -t && systemctl reload nginx")


def upstreams(color: str) -> str:
    """Return the upstream file, as the tools render it from its template."""
    from jinja2 import Environment

    text = (commands.DIRECTORY / "upstreams.conf.j2").read_text()
    environment = Environment(trim_blocks=True, keep_trailing_newline=True, autoescape=False)  # noqa: S701 - not HTML
    return environment.from_string(text).render(color=color, services=commands.SERVICES)


def _site() -> str:
    locations = "".join(
        f"    location {service['location']} {{ proxy_pass http://peers-{service['name']}; }}\n"
        for service in commands.SERVICES
    )
    return f"server {{\n    listen 80;\n    server_name {commands.SITE['domain']};\n{locations}}}\n"
