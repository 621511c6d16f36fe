"""Which host keys a machine offers, asked before any login there. It trusts none of them.

The hops on the way are logged in to, each with its key verified: what lies behind one cannot be seen otherwise.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fabfile.errors import HostUnreachable
from fabfile.model import Target
from fabfile.model.public_key import PublicKey
from fabfile.remote.connecting import Connecting, close

if TYPE_CHECKING:
    from fabric import Connection

#: One connection asks for one kind of key: the server shows a single key in each.
_KINDS = (
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512", "rsa-sha2-256"),
)


@dataclass(frozen=True)
class Way:
    """The way to a host of the inventory, or to the hop at that place on it, 0 being the outermost."""

    target: Target
    known_hosts: tuple[str, ...]
    connect_seconds: float
    place: int


def places(target: Target, connect_seconds: float) -> tuple[tuple[str, int], ...]:
    """Address and port of each hop to the host, outermost first, and its own last; contacts nothing."""
    hops = Connecting(target, target.user, (), connect_seconds).way()
    return tuple((hop.host, int(hop.port)) for hop in hops)


def scan_all(
    ways: Mapping[tuple[str, int], Way], parallel: int
) -> dict[tuple[str, int], tuple[PublicKey, ...] | HostUnreachable]:
    """The keys that each machine offers, or why it could not be asked."""

    def one(way: Way) -> tuple[PublicKey, ...] | HostUnreachable:
        try:
            return scan(way)
        except HostUnreachable as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, parallel)) as pool:
        return dict(zip(ways, pool.map(one, ways.values()), strict=True))


def scan(way: Way) -> tuple[PublicKey, ...]:
    """The keys that one machine offers, one of each kind. Raises HostUnreachable."""
    connecting = Connecting(way.target, way.target.user, way.known_hosts, way.connect_seconds)
    hops = connecting.way()[: way.place + 1]
    try:
        for hop in hops[:-1]:
            connecting.open_hop(hop)
        found = [_offered(hops[-1], kind, way) for kind in _KINDS]
    finally:
        close(hops[-1])
    keys = tuple(key for key in found if key is not None)
    if not keys:
        where = f"{hops[-1].host}:{hops[-1].port}"
        raise HostUnreachable(f"{way.target.name}: {where} offers no host key that is understood here.")
    return keys


def _offered(hop: Connection, kind: tuple[str, ...], way: Way) -> PublicKey | None:
    """The key of a kind that the machine proves to have; None when it has none."""
    from paramiko import SSHException, Transport
    from paramiko.ssh_exception import IncompatiblePeer

    transport = None
    try:
        transport = Transport(_socket(hop, way))
        transport.banner_timeout = way.connect_seconds
        options = transport.get_security_options()
        options.key_types = tuple(name for name in options.key_types if name in kind)
        transport.start_client(timeout=way.connect_seconds)
        key = transport.get_remote_server_key()
        return PublicKey(key.get_name(), key.get_base64())
    except IncompatiblePeer:
        return None
    except (SSHException, OSError, EOFError) as error:
        raise HostUnreachable(
            f"{way.target.name}: cannot see the host key of {hop.host}:{hop.port} ({error}).",
            next_step="check address, port and network, or leave it out with --hosts",
        ) from error
    finally:
        if transport is not None:
            with contextlib.suppress(OSError, EOFError):
                transport.close()


def _socket(hop: Connection, way: Way) -> Any:
    if hop.gateway:
        return hop.open_gateway()
    return socket.create_connection((hop.host, int(hop.port)), timeout=way.connect_seconds)
