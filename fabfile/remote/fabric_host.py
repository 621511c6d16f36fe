"""A Host over SSH: one verified Fabric connection per host, each script in one exec. It decides nothing.

Differences from Fabric as it comes, each measured: host keys are verified and unknown ones refused, TCP_NODELAY is set
(44 ms a command otherwise), a dead peer is noticed in seconds, and scripts travel over standard input of one `sh`, so
that nothing of them is in a process list.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

from fabfile.commands.shell import Script
from fabfile.errors import ConnectionDropped, HostUnreachable
from fabfile.model import Target
from fabfile.remote import terminal
from fabfile.remote.host import Answer, Cancelled
from fabfile.remote.image_server import Offer, offered

if TYPE_CHECKING:
    from fabric import Connection
    from paramiko import Channel, PKey, Transport

#: A dead peer is noticed after this long without an acknowledgement. Source: tcp(7), TCP_USER_TIMEOUT, milliseconds.
DEAD_PEER_MS = 5000
#: Not passed on, so that ssh_config's own port for an alias counts.
SSH_PORT = 22
_CHUNK = 65536
# What goes wrong is raised and said once; paramiko's own tracebacks on stderr say it again, and worse.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
_POLL_SECONDS = 0.1


class FabricHost:
    """A host of the inventory, reached as the deploy user (or the setup user)."""

    def __init__(
        self,
        target: Target,
        *,
        known_hosts: tuple[str, ...],
        connect_timeout_seconds: float = 10.0,
        user: str = "",
    ) -> None:
        self._target, self._known_hosts = target, known_hosts
        self._connect_seconds = connect_timeout_seconds
        self._user = user or target.user
        self._connection: Connection | None = None
        self._connecting = Lock()
        self.executions = 0
        self.connections = 0

    @property
    def name(self) -> str:
        """The inventory's name for it."""
        return self._target.name

    def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
        """Run the script in one exec of the host's connection, which is opened when there is none."""
        output, errors = bytearray(), bytearray()
        status = self._converse(script, output.extend, errors.extend, timeout_seconds, cancelled)
        return Answer(status, output.decode(errors="replace"), errors.decode(errors="replace"))

    def stream(
        self,
        script: Script,
        on_output: Callable[[bytes], None],
        on_errors: Callable[[bytes], None],
        *,
        timeout_seconds: float = math.inf,
        cancelled: Event | None = None,
    ) -> int:
        """Run the script and hand over what it says as it comes; its exit status. See `StreamingHost`."""
        return self._converse(script, on_output, on_errors, timeout_seconds, cancelled, hold=True)

    def offer(self, offer: Offer) -> AbstractContextManager[Script]:
        """Let the host fetch images from here while the block runs; gives what tells its script where."""
        return offered(self._transport(), offer, self.name)

    def converse(self, command: str, keys: int, screen: int) -> int:
        """Run the command line on a terminal of its own, joined to this one; its exit status.

        Raises HostUnreachable when it could not be begun, ConnectionDropped when the connection was lost.
        """
        channel = self._open_channel(command, kind=os.environ.get("TERM", "dumb"))
        self.executions += 1
        try:
            terminal.converse(channel, keys, screen)
            if not channel.status_event.wait(self._connect_seconds) or channel.exit_status < 0:
                raise EOFError("the host closed the channel without a status")
            return int(channel.exit_status)
        except (EOFError, OSError) as error:
            raise ConnectionDropped(f"{self.name}: the connection dropped ({error}).") from error
        finally:
            with contextlib.suppress(OSError, EOFError):
                channel.close()

    def close(self) -> None:
        """Close the connection and the hop it went through."""
        connection, self._connection = self._connection, None
        if connection is not None:
            _close(connection)

    def fingerprint(self) -> str:
        """The SHA-256 fingerprint of the host key that was verified. Raises HostUnreachable."""
        transport = self._transport()
        return str(transport.get_remote_server_key().fingerprint)

    def _open_channel(self, command: str = "exec sh -s", *, kind: str = "") -> Channel:
        from paramiko import SSHException

        for attempt in (1, 2):
            transport = self._transport()
            try:
                channel = transport.open_session(timeout=self._connect_seconds)
                if kind:
                    channel.get_pty(kind)
                channel.exec_command(command)
            except (SSHException, EOFError, OSError) as error:
                self.close()
                if attempt == 2:
                    raise HostUnreachable(f"{self.name}: no session on the connection ({error}).") from error
            else:
                return channel
        raise AssertionError("unreachable")

    def _converse(
        self,
        script: Script,
        on_output: Callable[[bytes], None],
        on_errors: Callable[[bytes], None],
        timeout_seconds: float,
        cancelled: Event | None,
        *,
        hold: bool = False,
    ) -> int:
        """Send the script, take in what it says, and answer its status; `hold` keeps its descriptor 3 open."""
        channel = self._open_channel()
        self.executions += 1
        try:
            channel.settimeout(_POLL_SECONDS)
            call = "main 3<&0 </dev/null; exit" if hold else "main </dev/null"
            _send(channel, f"main() {{\n{script.text}\n}}\n{call}\n".encode(), self._connect_seconds)
            if not hold:
                channel.shutdown_write()
            deadline = time.monotonic() + timeout_seconds
            while not _drained(channel, on_output, on_errors):
                if cancelled is not None and cancelled.is_set():
                    raise Cancelled(self.name)
                if time.monotonic() > deadline:
                    self.close()
                    raise ConnectionDropped(f"{self.name}: no answer within {timeout_seconds:g} s.")
            if not channel.status_event.wait(self._connect_seconds) or channel.exit_status < 0:
                raise EOFError("the host closed the channel without a status")
            return int(channel.exit_status)
        except (EOFError, OSError) as error:
            self.close()
            raise ConnectionDropped(f"{self.name}: the connection dropped while a script ran ({error}).") from error
        finally:
            with contextlib.suppress(OSError, EOFError):
                channel.close()

    def _transport(self) -> Transport:
        with self._connecting:
            connection = self._connection
            if connection is None or not connection.is_connected:
                self.close()
                self._connection = connection = self._connect()
                self.connections += 1
        transport = connection.transport
        if transport is None:
            raise HostUnreachable(f"{self.name}: the connection has no transport.")
        return transport

    def _connect(self) -> Connection:
        jump = self._target.jump
        gateway = None
        if jump:
            user, _, rest = jump.rpartition("@")
            address, _, port = rest.partition(":")
            gateway = self._build(address, user or self._user, int(port or 22), None)
        connection = self._build(self._target.address, self._user, self._target.port, gateway)
        for hop in reversed(_hops(connection)):
            _open(hop, self.name, self._known_hosts)
            if hop is not connection:
                self._wake(hop)
        return connection

    def _wake(self, hop: Connection) -> None:
        """One exec on a hop ends a stall of some 40 ms for each later command through it."""
        from paramiko import SSHException

        with contextlib.suppress(OSError, EOFError, SSHException):
            channel = hop.transport.open_session(timeout=self._connect_seconds)
            channel.exec_command("true")
            channel.close()

    def _build(self, address: str, user: str, port: int, gateway: Connection | None) -> Connection:
        from fabric import Config, Connection
        from paramiko import RejectPolicy

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
            port=None if port == SSH_PORT else port,
            gateway=gateway,
            config=Config(),
            forward_agent=False,
            connect_timeout=round(self._connect_seconds),
            connect_kwargs=kwargs,
        )
        for hop in _hops(connection):
            for path in self._known_hosts:
                hop.client.load_host_keys(path)
            hop.client.set_missing_host_key_policy(RejectPolicy())
        return connection


def _send(channel: Channel, data: bytes, patience_seconds: float) -> None:
    deadline = time.monotonic() + patience_seconds + len(data) / 10_000
    view = memoryview(data)
    while view:
        try:
            view = view[channel.send(bytes(view[:_CHUNK])) :]
        except TimeoutError:
            if time.monotonic() > deadline:
                raise


def _drained(channel: Channel, on_output: Callable[[bytes], None], on_errors: Callable[[bytes], None]) -> bool:
    """Take in what has arrived, waiting a moment for more; whether the host has said all it will."""
    while channel.recv_stderr_ready():
        on_errors(channel.recv_stderr(_CHUNK))
    try:
        piece = channel.recv(_CHUNK)
    except TimeoutError:
        return False
    if piece:
        on_output(piece)
        return False
    while late := channel.recv_stderr(_CHUNK):
        on_errors(late)
    return True


def _open(connection: Connection, name: str, known_hosts: tuple[str, ...]) -> None:
    from paramiko import AuthenticationException, BadHostKeyException, SSHException

    where = f"{connection.user}@{connection.host}:{connection.port}"
    files = " or ".join(known_hosts) or "known_hosts"
    try:
        connection.open()
    except BadHostKeyException as error:
        raise HostUnreachable(
            f"{name}: the host key of {where} is not the one on record; refused before login.",
            next_step=f"find out why it changed; only then replace its line in {files}",
        ) from error
    except AuthenticationException as error:
        raise HostUnreachable(
            f"{name}: {where} refused the login ({error}).",
            next_step="check the user, the key and ssh-add -l",
        ) from error
    except SSHException as error:
        next_step = (
            "add the host's key to a known_hosts file beside hosts.yaml, once verified"
            if "not found in known_hosts" in str(error)
            else f"try ssh -v {where}"
        )
        raise HostUnreachable(f"{name}: no verified connection to {where} ({error}).", next_step=next_step) from error
    except (OSError, EOFError) as error:
        raise HostUnreachable(
            f"{name}: cannot reach {where} ({error}).",
            next_step="check address, port and network, or leave it out with --hosts",
        ) from error


def _hops(connection: Connection) -> list[Connection]:
    """The connection and the hops it goes through, also those that ssh_config names, outermost last."""
    from fabric import Connection as Hop

    hops = [connection]
    while isinstance(hops[-1].gateway, Hop):
        hops.append(hops[-1].gateway)
    return hops


def _close(connection: Connection) -> None:
    for hop in _hops(connection):
        with contextlib.suppress(OSError, EOFError):
            hop.close()


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
