"""Read the host keys that machines offer, as ssh-keyscan does; only jump hosts need a login, with verified keys."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, TypeAlias

from rolling_upgrade.engine.model import Target
from rolling_upgrade.engine.openssh import PublicKey
from rolling_upgrade.engine.parallel import run_jobs
from rolling_upgrade.errors import HostUnreachable
from rolling_upgrade.ssh.connection import Connector, close, failure_reason, limit_memory, with_retries

if TYPE_CHECKING:
    from fabric import Connection

#: The address and port of a machine.
Address: TypeAlias = tuple[str, int]

#: The key types of one scan each: a server shows a single key per connection.
_KINDS = (
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512", "rsa-sha2-256"),
)


@dataclass(frozen=True)
class Route:
    """The route to a host of the inventory, up to the hop at index `hop`, 0 for the outermost."""

    target: Target
    known_hosts: tuple[str, ...]
    connect_seconds: float
    hop: int


def addresses(target: Target, connect_seconds: float) -> tuple[Address, ...]:
    """Return the address of each hop, outermost first, and of the host last; opens no connection."""
    hops = Connector(target, target.user, (), connect_seconds).route()
    return tuple((hop.host, int(hop.port)) for hop in hops)


def scan_all(routes: Mapping[Address, Route], parallel: int) -> dict[Address, tuple[PublicKey, ...] | HostUnreachable]:
    """Return the keys or the error of each machine."""

    def attempt(route: Route) -> tuple[PublicKey, ...] | HostUnreachable:
        try:
            return scan(route)
        except HostUnreachable as error:
            return error

    results = run_jobs([partial(attempt, route) for route in routes.values()], parallel, Event())
    return dict(zip(routes, results, strict=True))


def scan(route: Route) -> tuple[PublicKey, ...]:
    """Return the keys of one machine, at most one of each kind. Raises HostUnreachable."""
    connector = Connector(route.target, route.target.user, route.known_hosts, route.connect_seconds)
    hops = connector.route()[: route.hop + 1]
    try:
        for hop in hops[:-1]:
            connector.open_hop(hop)
        found = [_host_key(hops[-1], kind, route) for kind in _KINDS]
    finally:
        close(hops[-1])
    keys = tuple(key for key in found if key is not None)
    if not keys:
        where = f"{hops[-1].host}:{hops[-1].port}"
        raise HostUnreachable(f"{route.target.name}: {where} offers no supported host key.")
    return keys


def _host_key(hop: Connection, kind: tuple[str, ...], route: Route) -> PublicKey | None:
    """Return the proven key of a kind; None when the machine has none."""
    from paramiko import SSHException, Transport
    from paramiko.ssh_exception import IncompatiblePeer

    def attempt() -> PublicKey:
        transport = Transport(_socket(hop, route))
        try:
            limit_memory(transport, route.connect_seconds)
            transport.banner_timeout = route.connect_seconds
            options = transport.get_security_options()
            options.key_types = tuple(name for name in options.key_types if name in kind)
            transport.start_client(timeout=route.connect_seconds)
            key = transport.get_remote_server_key()
            return PublicKey(key.get_name(), key.get_base64())
        finally:
            with contextlib.suppress(SSHException, OSError, EOFError):
                transport.close()

    try:
        return with_retries(attempt)
    except IncompatiblePeer:
        return None
    except (SSHException, OSError, EOFError) as error:
        raise HostUnreachable(
            f"{route.target.name}: cannot read the host key of {hop.host}:{hop.port} ({failure_reason(error)}).",
            next_step="check address, port and network, or leave it out with --hosts",
        ) from error


def _socket(hop: Connection, route: Route) -> Any:
    if hop.gateway:
        return hop.open_gateway()
    return socket.create_connection((hop.host, int(hop.port)), timeout=route.connect_seconds)
