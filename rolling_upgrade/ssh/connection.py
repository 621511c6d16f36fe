"""One verified Fabric connection, and the hops it goes through. It runs nothing over it.

Differences from Fabric as it comes, each measured: host keys are verified and unknown ones refused, TCP_NODELAY is set
(44 ms a command otherwise), and a dead peer is noticed in seconds.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fabfile.config.known_hosts import recorded
from fabfile.errors import HostUnreachable
from fabfile.model import Target
from fabfile.model.known_hosts import SSH_PORT, host_name, usable
from fabfile.model.public_key import read_public_key

if TYPE_CHECKING:
    from fabric import Connection
    from paramiko import PKey, Transport

#: A dead peer is noticed after this long without an acknowledgement. Source: tcp(7), TCP_USER_TIMEOUT, milliseconds.
DEAD_PEER_MS = 5000
# What goes wrong is raised and said once; paramiko's own tracebacks on stderr say it again, and worse.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class Connecting:
    """How a host of the inventory is reached as a user."""

    def __init__(self, target: Target, user: str, known_hosts: tuple[str, ...], connect_seconds: float) -> None:
        self._target, self._user = target, user
        self._known_hosts, self._connect_seconds = known_hosts, connect_seconds

    def open(self) -> Connection:
        """The connection, open. Raises HostUnreachable, after which nothing is left open."""
        connection = self.way()[-1]
        try:
            for hop in hops(connection):
                self.open_hop(hop)
                if hop is not connection:
                    self._wake(hop)
        except HostUnreachable:
            close(connection)
            raise
        return connection

    def way(self) -> list[Connection]:
        """The hops to the host, outermost first, and the host itself last; none is open."""
        jump = self._target.jump
        gateway = None
        if jump:
            user, _, rest = jump.rpartition("@")
            address, _, port = rest.partition(":")
            gateway = self._build(address, user or self._user, int(port or 22), None)
        return hops(self._build(self._target.address, self._user, self._target.port, gateway))

    def open_hop(self, hop: Connection) -> None:
        """Log in at one hop, its key verified before. Raises HostUnreachable."""
        _open(hop, self._target.name, self._known_hosts)

    def _wake(self, hop: Connection) -> None:
        """One exec on a hop ends a stall of some 40 ms for each later command through it."""
        from paramiko import SSHException

        with contextlib.suppress(OSError, EOFError, SSHException):
            channel = hop.transport.open_session(timeout=self._connect_seconds)
            channel.exec_command("true")
            channel.close()

    def _build(self, address: str, user: str, port: int, gateway: Connection | None) -> Connection:
        from fabric import Config, Connection

        kwargs: dict[str, Any] = {
            "banner_timeout": self._connect_seconds,
            "auth_timeout": self._connect_seconds,
            "channel_timeout": self._connect_seconds,
            "transport_factory": _transport_factory,
        }
        if self._target.identity_file:
            kwargs |= {
                "pkey": load_key(self._target.identity_file),
                "look_for_keys": False,
                "allow_agent": False,
            }
        connection = Connection(
            address,
            user=user,
            # Not passed on where it is the usual one, so that ssh_config's own port for an alias counts.
            port=None if port == SSH_PORT else port,
            gateway=gateway,
            config=Config(),
            forward_agent=False,
            connect_timeout=round(self._connect_seconds),
            connect_kwargs=kwargs,
        )
        for hop in hops(connection):
            _expect(hop, self._known_hosts)
        return connection


def _expect(hop: Connection, files: tuple[str, ...]) -> None:
    """Let the hop accept the keys on record for it, and no other.

    Paramiko reads such files itself, but knows no wildcards, and accepts a key that an `@revoked` line names.
    """
    from paramiko import PKey, RejectPolicy, SSHException
    from paramiko.pkey import UnknownKeyType

    port = int(hop.port)
    name, keys = host_name(hop.host, port), hop.client.get_host_keys()
    for record in usable(recorded(hop.host, port, files)):
        with contextlib.suppress(UnknownKeyType, SSHException, ValueError):
            key = PKey.from_type_string(record.key.type, base64.b64decode(record.key.blob))
            keys.add(name, key.get_name(), key)
    hop.client.set_missing_host_key_policy(RejectPolicy())


def _open(connection: Connection, name: str, known_hosts: tuple[str, ...]) -> None:
    from paramiko import AuthenticationException, BadHostKeyException, SSHException

    where = f"{connection.user}@{connection.host}:{connection.port}"
    files = " or ".join(known_hosts) or "known_hosts"
    try:
        connection.open()
    except BadHostKeyException as error:
        raise HostUnreachable(
            f"{name}: the host key of {where} is not the one on record; refused before login.",
            next_step=f"find out why it changed; only then inv trust with --replace, which rewrites {files}",
        ) from error
    except AuthenticationException as error:
        raise HostUnreachable(
            f"{name}: {where} refused the login ({error}).",
            next_step="check the user, the key and ssh-add -l",
        ) from error
    except SSHException as error:
        next_step = (
            "inv trust shows its key and, once you have verified it, records it in a known_hosts file"
            if "not found in known_hosts" in str(error)
            else f"try ssh -v {where}"
        )
        raise HostUnreachable(f"{name}: no verified connection to {where} ({error}).", next_step=next_step) from error
    except (OSError, EOFError) as error:
        raise HostUnreachable(
            f"{name}: cannot reach {where} ({error}).",
            next_step="check address, port and network, or leave it out with --hosts",
        ) from error


def hops(connection: Connection) -> list[Connection]:
    """The hops that it goes through, also those that ssh_config names, outermost first, and the connection last."""
    from fabric import Connection as Hop

    found = [connection]
    while isinstance(found[0].gateway, Hop):
        found.insert(0, found[0].gateway)
    return found


def close(connection: Connection) -> None:
    """Close the connection and the hops it went through, also where a login was refused."""
    for hop in reversed(hops(connection)):
        with contextlib.suppress(OSError, EOFError):
            hop.close()
            # Fabric lets a connection whose login failed go on: it knows of none.
            hop.client.close()


def _transport_factory(sock: socket.socket, **kwargs: Any) -> Transport:
    from paramiko import Transport

    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)
    transport = Transport(sock, **kwargs)
    transport.set_keepalive(2)
    return transport


@functools.cache
def load_key(path: str) -> PKey:
    """A private key file, parsed once per process: parsing costs 100 to 350 ms of CPU. Raises HostUnreachable."""
    from paramiko import PKey, SSHException

    try:
        return PKey.from_path(Path(path))
    except (OSError, SSHException, ValueError, TypeError) as error:
        raise HostUnreachable(
            f"the key file {path} cannot be used ({error}).", next_step="check identity_file in hosts.yaml"
        ) from error


def offered_keys(identity_file: str) -> frozenset[str]:
    """The fingerprints of the keys that a login from here can use: the named one, or the agent's and ~/.ssh's."""
    if identity_file:
        return frozenset({str(load_key(identity_file).fingerprint)})
    from paramiko import Agent, SSHException

    found: set[str] = set()
    with contextlib.suppress(OSError, SSHException):
        found.update(str(key.fingerprint) for key in Agent().get_keys())
    for path in Path("~/.ssh").expanduser().glob("id_*.pub"):
        with contextlib.suppress(OSError, ValueError):
            found.add(read_public_key(path.read_text(encoding="utf-8")).fingerprint)
    return frozenset(found)
