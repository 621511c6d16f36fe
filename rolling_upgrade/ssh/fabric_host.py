"""A Host over SSH: one verified Fabric connection per host, each script in one exec. It decides nothing.

Scripts travel over the standard input of one `sh`, so that nothing of them is in a process list.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Event, Lock
from typing import TYPE_CHECKING

from fabfile.commands.shell import Script
from fabfile.errors import ConnectionDropped, HostUnreachable
from fabfile.model import Target
from fabfile.remote import terminal
from fabfile.remote.connecting import Connecting, close
from fabfile.remote.host import Answer, Cancelled
from fabfile.remote.image_server import Offer, offered

if TYPE_CHECKING:
    from fabric import Connection
    from paramiko import Channel, Transport

_CHUNK = 65536
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
        channel = self._open_channel(command, size=os.get_terminal_size(screen))
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
            close(connection)

    def fingerprint(self) -> str:
        """The SHA-256 fingerprint of the host key that was verified. Raises HostUnreachable."""
        transport = self._transport()
        return str(transport.get_remote_server_key().fingerprint)

    def _open_channel(self, command: str = "exec sh -s", *, size: os.terminal_size | None = None) -> Channel:
        from paramiko import SSHException

        for attempt in (1, 2):
            transport = self._transport()
            try:
                channel = transport.open_session(timeout=self._connect_seconds)
                if size is not None:
                    channel.get_pty(os.environ.get("TERM", "dumb"), size.columns, size.lines)
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
            # An argument may hold bytes that are no text: they go as they came.
            program = f"main() {{\n{script.text}\n}}\n{call}\n".encode(errors="surrogateescape")
            _send(channel, program, self._connect_seconds)
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
                self._connection = connection = Connecting(
                    self._target, self._user, self._known_hosts, self._connect_seconds
                ).open()
                self.connections += 1
        transport = connection.transport
        if transport is None:
            raise HostUnreachable(f"{self.name}: the connection has no transport.")
        return transport


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
