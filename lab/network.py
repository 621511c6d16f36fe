"""The lab's network: one bridge on an unused subnet of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterable
from ipaddress import IPv4Network, ip_network
from typing import Any

from lab.files import locked
from lab.machine import LABEL, Machine, labelled
from rolling_upgrade.errors import PreflightError

SUBNETS = tuple(IPv4Network(f"10.213.{number}.0/24") for number in range(256))


def ensure_network(machine: Machine, identity: str) -> IPv4Network:
    """Return the subnet of the lab's network, which is created if missing. Raises PreflightError if none is free."""
    with locked("network"):
        names = machine.podman("network", "ls", "--format", "{{.Name}}").stdout.split()
        known: list[dict[str, Any]] = json.loads(machine.podman("network", "inspect", *names).stdout)
        for network in known:
            if network["name"] == identity:
                return IPv4Network(network["subnets"][0]["subnet"])
        routes = json.loads(machine.run("ip", "-json", "-4", "route").stdout or "[]")
        subnet = free_subnet([*_subnets(known), *_routed(routes)])
        label = f"{LABEL}={identity}"
        machine.podman("network", "create", "--disable-dns", "--subnet", str(subnet), "--label", label, identity)
        return subnet


def remove_networks(machine: Machine, identity: str) -> None:
    """Remove the lab's network, if there is one."""
    for network in labelled(machine, "network", identity):
        machine.podman("network", "rm", "--force", network)


def free_subnet(taken: Iterable[IPv4Network]) -> IPv4Network:
    """Return the first of the lab's subnets that overlaps none of these."""
    listed = tuple(taken)
    for subnet in SUBNETS:
        if not any(subnet.overlaps(other) for other in listed):
            return subnet
    raise PreflightError("No free subnet is left in 10.213.0.0/16.", next_step="inv lab.down what you do not use")


def _subnets(networks: Iterable[dict[str, Any]]) -> list[IPv4Network]:
    listed = [ip_network(part["subnet"]) for network in networks for part in network.get("subnets") or []]
    return [subnet for subnet in listed if isinstance(subnet, IPv4Network)]


def _routed(routes: Iterable[dict[str, Any]]) -> list[IPv4Network]:
    """Return the destinations of this machine's routes, without the default route."""
    return [IPv4Network(route["dst"]) for route in routes if route["dst"][0].isdigit()]
