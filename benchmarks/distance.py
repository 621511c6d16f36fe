"""Adds a round-trip time between this machine and the lab's hosts, by netem or by a delaying relay.

Traffic between a host and the registry is not delayed.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import yaml

from benchmarks.relay import Relay
from lab.environment import public_key
from lab.laboratory import Lab

SSH_PORT = 22
Endpoints = Mapping[str, tuple[str, int]]

#: Source: tc-netem(8), tc-prio(8), tc-u32(8): everything to the bridge's own address is delayed, the rest is not.
_DELAY = """
set -e
tc qdisc add dev eth0 root handle 1: prio
tc qdisc add dev eth0 parent 1:3 handle 30: netem delay {milliseconds}ms limit 100000
tc filter add dev eth0 parent 1: protocol ip prio 1 u32 match ip dst {gateway}/32 flowid 1:3
"""
_GATEWAY = "ip route show default | awk '{ print $3 }'"
_NO_DELAY = "tc qdisc delete dev eth0 root"


def has_netem(lab: Lab) -> bool:
    """Return whether the kernel can delay packets on the first host."""
    try:
        return _delay(lab, lab.hosts[0].name, 1)
    finally:
        lab.hosts[0].sh(_NO_DELAY, check=False)


def _delay(lab: Lab, name: str, milliseconds: int) -> bool:
    host = lab.host(name)
    gateway = host.sh(_GATEWAY).stdout.strip()
    return host.sh(_DELAY.format(milliseconds=milliseconds, gateway=gateway), check=False).returncode == 0


def method(*, netem: bool) -> str:
    """Return what makes the distance, for a line above a table."""
    return "netem" if netem else "a delaying relay, because this kernel has no netem"


@contextmanager
def distance(lab: Lab, milliseconds: int, *, netem: bool) -> Iterator[Endpoints]:
    """Delay every host by this round-trip time, write an inventory for the delayed addresses, and return them."""
    direct = {host.name: (host.address, SSH_PORT) for host in lab.hosts}
    with _reached(lab, direct, milliseconds, netem=netem) as endpoints:
        _check(endpoints, milliseconds)
        _write_inventory(lab, endpoints)
        yield endpoints


@contextmanager
def _reached(lab: Lab, direct: Endpoints, milliseconds: int, *, netem: bool) -> Iterator[Endpoints]:
    if milliseconds == 0:
        yield direct
    elif netem:
        try:
            for name in direct:
                _delay(lab, name, milliseconds)
            yield direct
        finally:
            for host in lab.hosts:
                host.sh(_NO_DELAY, check=False)
    else:
        with Relay(direct, milliseconds / 1000) as relay:
            yield {name: ("127.0.0.1", port) for name, port in relay.ports.items()}


def _check(endpoints: Endpoints, milliseconds: int) -> None:
    """Check that no host's greeting arrives before the round-trip time. Raises SystemExit."""
    for name, endpoint in endpoints.items():
        started_at = time.monotonic()
        with socket.create_connection(endpoint, timeout=10) as connection:
            connection.recv(4)
        waited = (time.monotonic() - started_at) * 1000
        if waited < milliseconds:
            raise SystemExit(f"{name} greets after {waited:.0f} ms, before the round-trip time of {milliseconds} ms.")


def _write_inventory(lab: Lab, endpoints: Endpoints) -> None:
    """Rewrite the lab's inventory and known_hosts for these addresses."""
    inventory = lab.root / "hosts.yaml"
    content = yaml.safe_load(inventory.read_text())
    environment = content["environments"][lab.name]
    environment["hosts"] = {name: {"address": address, "port": port} for name, (address, port) in endpoints.items()}
    inventory.write_text(yaml.safe_dump(content))
    keys = []
    for name, (address, port) in endpoints.items():
        host = address if port == SSH_PORT else f"[{address}]:{port}"
        keys.append(f"{host} {public_key(lab.root / 'host_keys' / name).read_text()}")
    (lab.root / "known_hosts").write_text("".join(keys))
