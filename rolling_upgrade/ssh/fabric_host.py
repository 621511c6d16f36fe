"""A Host over SSH: one verified Fabric connection per host, and one exec for each script.

Scripts travel over the standard input of `sh`, so that no process list shows them.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Event, Lock
from typing import TYPE_CHECKING

from rolling_upgrade.engine.host import Answer, Limits
from rolling_upgrade.engine.model import Target
from rolling_upgrade.engine.shell import AS_LOGIN_USER, Script
from rolling_upgrade.errors import ConnectionDropped, HostUnreachable
from rolling_upgrade.ssh import terminal
from rolling_upgrade.ssh.connection import Connector, close, close_channel, closed_after

if TYPE_CHECKING:
    from fabric import Connection
    from paramiko import Channel, Transport

    from rolling_upgrade.ssh.image_server import Offer

_CHUNK = 65536
_POLL_SECONDS = 0.1
#: The maximum number of unread bytes: twice the window of the peer. Source: RFC 4254, 5.2.
_MAX_UNREAD = 4 << 20


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
        self.name = target.name
        self._connect_seconds = connect_timeout_seconds
        self._connector = Connector(target, user or target.user, known_hosts, connect_timeout_seconds)
        self._connection: Connection | None = None
        self._connecting = Lock()
        self.executions = 0
        self.connections = 0

    def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
        """Run the script in one exec of the host's connection, which opens at first use."""
        output, errors = bytearray(), bytearray()
        limits = Limits(self.name, timeout_seconds, script.answer_bytes, cancelled)
        status = self._execute(script, output.extend, errors.extend, limits)
        return Answer(status, output.decode(errors="replace"), errors.decode(errors="replace"))

    def stream(
        self,
        script: Script,
        on_output: Callable[[bytes], None],
        on_errors: Callable[[bytes], None],
        *,
        timeout_seconds: float = math.inf,
        cancelled: Event | None = None,
        on_open: Callable[[Callable[[bytes], None]], None] = lambda _: None,
        shell: str = AS_LOGIN_USER,
        send_seconds: float | None = None,
    ) -> int:
        """Run the script, pass on its output as it arrives, and return its exit status. See `StreamingHost`.

        `send_seconds` is how long a script may leave what was sent unread; default: the connection timeout.
        """
        limits = Limits(self.name, timeout_seconds, math.inf, cancelled)
        return self._execute(script, on_output, on_errors, limits, on_open, shell, send_seconds)

    def offer(self, offer: Offer) -> AbstractContextManager[Script]:
        """Offer images to the host during the block; yields a script prologue with their address."""
        from rolling_upgrade.ssh.image_server import offered

        return offered(self._transport(), offer, self.name, self._connect_seconds)

    def run_interactive(self, command: str, keys: int, screen: int) -> int:
        """Run the command line on a remote terminal that is connected to this one, and return its exit status.

        Raises HostUnreachable when it could not start, ConnectionDropped when the connection was lost.
        """
        from paramiko import SSHException

        channel = self._open_channel(command, size=os.get_terminal_size(screen))
        self.executions += 1
        try:
            terminal.attach(channel, keys, screen)
            if not channel.status_event.wait(self._connect_seconds) or channel.exit_status < 0:
                raise EOFError("the host closed the channel without a status")
            return int(channel.exit_status)
        except (SSHException, EOFError, OSError) as error:
            raise ConnectionDropped(f"{self.name}: the connection dropped ({error}).") from error
        finally:
            close_channel(channel)

    def connect(self) -> None:
        """Connect unless the connection exists. Raises HostUnreachable."""
        self._transport()

    def close(self) -> None:
        """Close the connection and its hops."""
        connection, self._connection = self._connection, None
        if connection is not None:
            close(connection)

    def _open_channel(self, command: str, *, size: os.terminal_size | None = None) -> Channel:
        from paramiko import SSHException

        for attempt in (1, 2):
            transport = self._transport()
            try:
                channel = transport.open_session(timeout=self._connect_seconds)
                # Paramiko waits for the answer to a request without a timeout.
                with closed_after(transport, self._connect_seconds):
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

    def _execute(
        self,
        script: Script,
        on_output: Callable[[bytes], None],
        on_errors: Callable[[bytes], None],
        limits: Limits,
        on_open: Callable[[Callable[[bytes], None]], None] | None = None,
        shell: str = AS_LOGIN_USER,
        send_seconds: float | None = None,
    ) -> int:
        """Send the script, receive its output, and return its status; with `on_open`, its descriptor 3 stays open."""
        from paramiko import SSHException

        limits.check()
        channel = self._open_channel(shell)
        self.executions += 1
        try:
            channel.settimeout(_POLL_SECONDS)
            call = "main 3<&0 </dev/null; exit" if on_open else "main </dev/null"
            # surrogateescape: arguments may contain bytes that are not UTF-8.
            program = f"main() {{\n{script.text}\n}}\n{call}\n".encode(errors="surrogateescape")
            patience = self._connect_seconds + len(program) / 10_000
            # A host that reads nothing blocks the whole transport, not only the channel with its window.
            with closed_after(channel.transport, patience + 1):
                _send(channel, program, patience, limits)
            if on_open is None:
                channel.shutdown_write()
            else:
                seconds = self._connect_seconds if send_seconds is None else send_seconds
                on_open(lambda data: _send(channel, data, seconds, limits))
            limits.begin()
            while not _receive(channel, on_output, on_errors, limits):
                limits.check()
            return _status(channel, self._connect_seconds, limits)
        except ConnectionDropped:
            self.close()
            raise
        except (SSHException, EOFError, OSError) as error:
            self.close()
            limits.check()
            raise ConnectionDropped(f"{self.name}: the connection dropped while a script ran ({error}).") from error
        finally:
            close_channel(channel)

    def _transport(self) -> Transport:
        with self._connecting:
            connection = self._connection
            if connection is None or not connection.is_connected:
                self.close()
                self._connection = connection = self._connector.open()
                self.connections += 1
        transport = connection.transport
        if transport is None:
            raise HostUnreachable(f"{self.name}: the connection has no transport.")
        return transport


def _send(channel: Channel, data: bytes, patience_seconds: float, limits: Limits) -> None:
    deadline = time.monotonic() + patience_seconds
    view = memoryview(data)
    while view:
        try:
            sent = channel.send(bytes(view[:_CHUNK]))
            if not sent:
                raise EOFError("the host closed the channel")
            view = view[sent:]
        except TimeoutError:
            limits.check()
            if time.monotonic() > deadline:
                raise


def _receive(
    channel: Channel, on_output: Callable[[bytes], None], on_errors: Callable[[bytes], None], limits: Limits
) -> bool:
    """Receive one piece of output, with a short wait; return whether the output has ended."""
    if len(channel.in_buffer) + len(channel.in_stderr_buffer) > _MAX_UNREAD:
        raise EOFError("the host sent more than its window allows")
    errors = channel.recv_stderr(_CHUNK) if channel.recv_stderr_ready() else b""
    if errors:
        limits.count(errors)
        on_errors(errors)
        if not channel.recv_ready():
            return False
    try:
        piece = channel.recv(_CHUNK)
    except TimeoutError:
        return False
    if piece:
        limits.count(piece)
        on_output(piece)
    return not (piece or errors or channel.recv_stderr_ready())


def _status(channel: Channel, patience_seconds: float, limits: Limits) -> int:
    """Wait for the exit status after the end of the output. Raises EOFError when none arrives."""
    deadline = time.monotonic() + patience_seconds
    while not channel.status_event.wait(_POLL_SECONDS) and time.monotonic() < deadline:
        limits.check()
    if channel.exit_status < 0:
        raise EOFError("the host closed the channel without a status")
    return int(channel.exit_status)
