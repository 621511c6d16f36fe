"""Delivery of one message on one channel: deadline, retries, error messages.

The text of a library's error is never shown unmasked: it may quote an address or a login.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any
from urllib.error import URLError

from rolling_upgrade.engine.masking import safe

MOST_TRIES = 3
#: Pause before the second try; it doubles with each try.
PAUSE_SECONDS = 0.5
#: Limit for opening a connection; it leaves time for a second try.
CONNECT_SECONDS = 4.0
#: The maximum number of characters of an error text, the server's reply included.
LONGEST_ERROR = 300


@dataclass(frozen=True)
class Delivery:
    """The result of one message on one channel; `error` is '' after success."""

    channel: str
    error: str = ""
    tries: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the channel accepted the message."""
        return not self.error


class NotDelivered(Exception):
    """A failed attempt: the reason, whether a retry may help, and the pause that the server asks for."""

    def __init__(self, why: str, *, again: bool = False, wait_seconds: float = 0.0) -> None:
        super().__init__(why)
        self.why, self.again, self.wait_seconds = why, again, wait_seconds


class Deadline:
    """The time limit of a message, with all its attempts and pauses. `clock` counts seconds from any point."""

    def __init__(self, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self.clock, self.sleep = clock, sleep
        self.seconds, self._end = seconds, clock() + seconds
        self._open: list[Any] = []
        self._lock = Lock()
        self._over = False

    @property
    def remaining(self) -> float:
        """Seconds left; never 0, which would make a socket non-blocking."""
        return max(self._end - self.clock(), 0.001)

    @property
    def connecting(self) -> float:
        """Seconds left for opening a connection."""
        return min(self.remaining, CONNECT_SECONDS)

    @property
    def over(self) -> bool:
        """Whether the time is up, or `cut` was called."""
        return self._over or self.clock() >= self._end

    def register(self, connection: Any) -> None:
        """Register a connection for `cut`; it has a socket, `sock`, once it is connected."""
        with self._lock:
            self._open.append(connection)

    def cut(self) -> None:
        """Close all connections: a slow peer that sends occasional bytes would keep one open for hours."""
        with self._lock:
            self._over = True
            for connection in self._open:
                with suppress(OSError, ValueError, AttributeError):
                    connection.sock.shutdown(socket.SHUT_RDWR)


def deliver(channel: str, attempt: Callable[[Deadline], None], deadline: Deadline, secrets: Sequence[str]) -> Delivery:
    """Try until the channel accepts the message, a retry cannot help, or the time is up. Never raises."""
    started_at, tries = deadline.clock(), 0
    while True:
        tries += 1
        try:
            attempt(deadline)
        except Exception as error:  # noqa: BLE001 - a failing channel is a result, and never stops a run
            failure = explain(error)
        else:
            return Delivery(channel, "", tries, deadline.clock() - started_at)
        pause = max(failure.wait_seconds, PAUSE_SECONDS * 2 ** (tries - 1))
        if not failure.again or tries >= MOST_TRIES or deadline.over or pause >= deadline.remaining:
            # Mask before truncating: a truncated secret would not be recognized.
            return Delivery(channel, safe(failure.why, secrets)[:LONGEST_ERROR], tries, deadline.clock() - started_at)
        deadline.sleep(pause)


def explain(error: BaseException) -> NotDelivered:
    """Describe a failure without the details that a library's text may leak."""
    if isinstance(error, URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, NotDelivered):
        return error
    if isinstance(error, smtplib.SMTPException):
        return _explain_smtp(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return NotDelivered(f"the certificate is not trusted: {one_line(error.verify_message)}")
    if isinstance(error, ssl.SSLError):
        return NotDelivered(f"TLS failed: {one_line(error.reason or 'the connection was closed')}")
    if isinstance(error, socket.gaierror):
        return NotDelivered("the host name could not be resolved", again=error.errno == socket.EAI_AGAIN)
    if isinstance(error, TimeoutError):
        return NotDelivered("no response in time", again=True)
    if isinstance(error, ConnectionRefusedError):
        return NotDelivered("connection refused", again=True)
    if isinstance(error, ConnectionError | EOFError):
        return NotDelivered("the server closed the connection", again=True)
    if isinstance(error, OSError) and error.strerror:
        return NotDelivered(one_line(error.strerror), again=True)
    return NotDelivered(f"an unexpected error ({type(error).__name__})")


def _explain_smtp(error: smtplib.SMTPException) -> NotDelivered:
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return NotDelivered(
            f"login refused: {error.smtp_code} {one_line(error.smtp_error)}", again=error.smtp_code < 500
        )
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        refused = next(iter(error.recipients.values()))
        return NotDelivered(f"every recipient was refused: {refused[0]} {one_line(refused[1])}", again=refused[0] < 500)
    if isinstance(error, smtplib.SMTPResponseException):
        again = 0 < error.smtp_code < 500
        return NotDelivered(f"the server answered {error.smtp_code} {one_line(error.smtp_error)}", again=again)
    if isinstance(error, smtplib.SMTPServerDisconnected):
        # Source: smtplib.SMTP.getreply raises it for a timeout too.
        if isinstance(error.__context__, TimeoutError):
            return explain(error.__context__)
        return NotDelivered("the server closed the connection", again=True)
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return NotDelivered(
            "the server does not offer the TLS or login that SMTP_SECURITY and SMTP_USER ask for; nothing was sent"
        )
    return NotDelivered(f"an SMTP error ({type(error).__name__})")


def one_line(reply: object) -> str:
    """The text of a server or a library on one line; `deliver` masks and cuts it."""
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else str(reply)
    return " ".join(text.split())
