"""A verified Fabric connection and its hops.

Differences from Fabric's defaults, each measured: unknown host keys are refused, TCP_NODELAY is set (without it each
command takes 44 ms longer), and a dead peer is noticed within seconds.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any, TypeVar

from rolling_upgrade.engine.model import Target
from rolling_upgrade.engine.openssh import SSH_PORT, host_name, read_public_key, read_records, usable
from rolling_upgrade.errors import PROGRAM, HostUnreachable

if TYPE_CHECKING:
    from fabric import Connection
    from paramiko import Channel, PKey, Transport

#: A peer is dead after this time without an acknowledgement. Source: tcp(7), TCP_USER_TIMEOUT, milliseconds.
DEAD_PEER_MS = 5000
#: The size limits in bytes of the peer's packets, and of the text before its version.
MAX_PACKET, MAX_GREETING = 256 << 10, 64 << 10
#: The pauses between attempts, seconds: longer in total than the 15 seconds for which sshd blocks an address.
#: Source: sshd_config(5), MaxStartups and PerSourcePenalties.
PAUSES = (1.0, 2.0, 4.0, 8.0, 8.0)
T = TypeVar("T")
# Errors are raised; paramiko would also log them with tracebacks to stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class Connector:
    """Opens the connection of a user to a host of the inventory."""

    def __init__(self, target: Target, user: str, known_hosts: tuple[str, ...], connect_seconds: float) -> None:
        self._target, self._user = target, user
        self._known_hosts, self._connect_seconds = known_hosts, connect_seconds

    def open(self) -> Connection:
        """Open the connection. Raises HostUnreachable, and then leaves nothing open."""
        connection = self.route()[-1]
        try:
            for hop in hops(connection):
                self.open_hop(hop)
                if hop is not connection:
                    self._warm_up(hop)
        except HostUnreachable:
            close(connection)
            raise
        return connection

    def route(self) -> list[Connection]:
        """Return the unopened connections to the hops, outermost first, and to the host itself last."""
        jump = self._target.jump
        gateway = None
        if jump:
            user, _, rest = jump.rpartition("@")
            address, _, port = rest.partition(":")
            gateway = self._build(address, user or self._user, int(port or 22), None)
        return hops(self._build(self._target.address, self._user, self._target.port, gateway))

    def open_hop(self, hop: Connection) -> None:
        """Verify the key of one hop and log in. Raises HostUnreachable."""
        _log_in(hop, self._target.name, self._known_hosts)

    def _warm_up(self, hop: Connection) -> None:
        """Run one exec on a hop, which avoids a stall of about 40 ms for each later command through it."""
        from paramiko import SSHException

        transport = hop.transport
        with contextlib.suppress(OSError, EOFError, SSHException), closed_after(transport, self._connect_seconds):
            channel = transport.open_session(timeout=self._connect_seconds)
            channel.exec_command("true")
            channel.close()

    def _build(self, address: str, user: str, port: int, gateway: Connection | None) -> Connection:
        from fabric import Config, Connection

        limits: dict[str, Any] = {
            "banner_timeout": self._connect_seconds,
            "auth_timeout": self._connect_seconds,
            "channel_timeout": self._connect_seconds,
            "transport_factory": functools.partial(_transport_factory, self._connect_seconds),
        }
        kwargs = dict(limits)
        if self._target.identity_file:
            kwargs |= {
                "pkey": load_key(self._target.identity_file),
                "look_for_keys": False,
                "allow_agent": False,
            }
        connection = Connection(
            address,
            user=user,
            # The default port is not passed, so that ssh_config can set the port of an alias.
            port=None if port == SSH_PORT else port,
            gateway=gateway,
            config=Config(),
            forward_agent=False,
            connect_timeout=round(self._connect_seconds),
            connect_kwargs=kwargs,
        )
        for hop in hops(connection):
            # Fabric creates the hops of ssh_config without these limits.
            hop.connect_kwargs = {**hop.connect_kwargs, **limits}
            hop.connect_timeout = connection.connect_timeout
            _accept_only_recorded_keys(hop, self._known_hosts)
        return connection


def _accept_only_recorded_keys(hop: Connection, files: tuple[str, ...]) -> None:
    """Make the hop refuse every host key that is not recorded.

    Paramiko's own reader of known_hosts ignores wildcards, and accepts keys of `@revoked` lines.
    """
    from paramiko import PKey, RejectPolicy, SSHException
    from paramiko.pkey import UnknownKeyType

    port = int(hop.port)
    name, keys = host_name(hop.host, port), hop.client.get_host_keys()
    for record in usable(read_records(hop.host, port, files)):
        with contextlib.suppress(UnknownKeyType, SSHException, ValueError):
            key = PKey.from_type_string(record.key.type, base64.b64decode(record.key.blob))
            keys.add(name, key.get_name(), key)
    hop.client.set_missing_host_key_policy(RejectPolicy())


def _log_in(connection: Connection, name: str, known_hosts: tuple[str, ...]) -> None:
    from paramiko import AuthenticationException, BadHostKeyException, SSHException

    where = f"{connection.user}@{connection.host}:{connection.port}"
    files = " or ".join(known_hosts) or "known_hosts"
    try:
        with_retries(connection.open)
    except BadHostKeyException as error:
        raise HostUnreachable(
            f"{name}: the host key of {where} is not the recorded one; refused before the login.",
            next_step=f"find out why it changed; only then run {PROGRAM} trust with --replace, which rewrites {files}",
        ) from error
    except AuthenticationException as error:
        raise HostUnreachable(
            f"{name}: {where} refused the login ({error}).",
            next_step="check the user, the key and ssh-add -l",
        ) from error
    except SSHException as error:
        if _closed_before_greeting(error):
            raise HostUnreachable(
                f"{name}: {where} closed {len(PAUSES) + 1} connections before its greeting.",
                next_step="its sshd is busy or refuses this address for a while: wait a minute, or read its log",
            ) from error
        next_step = (
            f"{PROGRAM} trust shows its key and, once you have verified it, records it in a known_hosts file"
            if "not found in known_hosts" in str(error)
            else f"try ssh -v {where}"
        )
        raise HostUnreachable(f"{name}: no verified connection to {where} ({error}).", next_step=next_step) from error
    except (OSError, EOFError) as error:
        raise HostUnreachable(
            f"{name}: cannot reach {where} ({failure_reason(error)}).",
            next_step="check address, port and network, or leave it out with --hosts",
        ) from error


def failure_reason(error: Exception) -> str:
    """Return the system's reason for a failed connection. Paramiko's text of several attempts is `[Errno None]`."""
    attempts = getattr(error, "errors", {}).values() or (error,)
    reasons = (getattr(attempt, "strerror", None) or str(attempt) or "connection closed" for attempt in attempts)
    return ", ".join(dict.fromkeys(reasons))


def with_retries(attempt: Callable[[], T]) -> T:
    """Call `attempt`; retry after each pause while the server closes the connection before its greeting.

    A busy server does so, and one that blocks an address for a while after connections without a login.
    """
    from paramiko import SSHException

    for pause in PAUSES:
        try:
            return attempt()
        except SSHException as error:
            if not _closed_before_greeting(error):
                raise
        time.sleep(pause)
    return attempt()


def _closed_before_greeting(error: Exception) -> bool:
    """Return whether the server closed the connection before its greeting; Paramiko keeps the cause as the context."""
    return "banner" in str(error) and isinstance(error.__context__, EOFError | ConnectionError)


def hops(connection: Connection) -> list[Connection]:
    """Return the hops, including those of ssh_config, outermost first, and the connection last."""
    from fabric import Connection as Hop

    route = [connection]
    while isinstance(route[0].gateway, Hop):
        route.insert(0, route[0].gateway)
    return route


def close(connection: Connection) -> None:
    """Close the connection and its hops, also after a refused login."""
    from paramiko import SSHException

    for hop in reversed(hops(connection)):
        with contextlib.suppress(SSHException, OSError, EOFError):
            hop.close()
            # Fabric does not close a connection whose login failed.
            hop.client.close()


def close_channel(channel: Channel) -> None:
    """Close a channel, and ignore errors of a dead peer: they must not hide an earlier error."""
    from paramiko import SSHException

    with contextlib.suppress(SSHException, OSError, EOFError):
        channel.close()


@contextlib.contextmanager
def closed_after(transport: Transport, seconds: float) -> Iterator[None]:
    """Close the transport when the block does not end in time, which ends every wait on it with an error."""
    timer = Timer(seconds, transport.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def limit_memory(transport: Transport, seconds: float) -> Transport:
    """Limit the memory that the peer can use, before and after the key exchange.

    A key exchange may delay outgoing packets by at most `seconds`.

    Source: RFC 4253, 4.2 (lines before the version) and 6.1 (packets of 35,000 bytes; OpenSSH accepts 256 KiB).
    Paramiko accepts a packet of 4 GiB, and an endless first line.
    """
    from paramiko import SSHException

    transport.clear_to_send_timeout = seconds
    packetizer = transport.packetizer
    read_all, read_some = packetizer.read_all, packetizer._read_timeout
    left = MAX_GREETING

    def packet(n: int, check_rekey: bool = False) -> bytes:
        if n > MAX_PACKET:
            raise SSHException(f"a packet of {n} bytes")
        return bytes(read_all(n, check_rekey))

    def greeting(timeout: float) -> bytes:
        nonlocal left
        piece = bytes(read_some(timeout))
        left -= len(piece)
        if left < 0:
            raise SSHException(f"more than {MAX_GREETING} bytes before its version")
        return piece

    packetizer.read_all, packetizer._read_timeout = packet, greeting
    return transport


def _transport_factory(seconds: float, sock: socket.socket, **kwargs: Any) -> Transport:
    from paramiko import Transport

    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)
    transport = limit_memory(Transport(sock, **kwargs), seconds)
    transport.set_keepalive(2)
    return transport


@functools.cache
def load_key(path: str) -> PKey:
    """Load a private key file once per process: parsing takes 100 to 350 ms of CPU. Raises HostUnreachable."""
    from paramiko import PKey, SSHException

    try:
        return PKey.from_path(Path(path))
    except (OSError, SSHException, ValueError, TypeError) as error:
        raise HostUnreachable(
            f"the key file {path} cannot be used ({error}).", next_step="check identity_file in hosts.yaml"
        ) from error


def login_fingerprints(identity_file: str) -> frozenset[str]:
    """Return the fingerprints of the keys for a login from here: the given one, or those of the agent and ~/.ssh."""
    if identity_file:
        return frozenset({str(load_key(identity_file).fingerprint)})
    from paramiko import Agent, SSHException

    fingerprints: set[str] = set()
    with contextlib.suppress(OSError, SSHException):
        fingerprints.update(str(key.fingerprint) for key in Agent().get_keys())
    for path in Path("~/.ssh").expanduser().glob("id_*.pub"):
        with contextlib.suppress(OSError, ValueError):
            fingerprints.add(read_public_key(path.read_text(encoding="utf-8")).fingerprint)
    return frozenset(fingerprints)
