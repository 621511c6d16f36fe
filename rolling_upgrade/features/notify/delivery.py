"""One message on one channel: its deadline, its tries, and how a failure is worded. It knows no channel.

What a library says of an error is never shown as it is: it may quote an address or a login.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol
from urllib.error import URLError

from fabfile.model.masking import safe

MOST_TRIES = 3
#: Pause before the second try; it doubles from try to try.
PAUSE_SECONDS = 0.5
#: What one connection may take to open: a second try has to fit in.
CONNECT_SECONDS = 4.0
#: How much of a failure is shown, a server's own words included.
LONGEST_ERROR = 300


@dataclass(frozen=True)
class Delivery:
    """How one message fared on one channel; an empty `error` means that it arrived."""

    channel: str
    error: str = ""
    tries: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it arrived."""
        return not self.error


class NotDelivered(Exception):
    """A try that failed: why, whether another one may help, and after how many seconds."""

    def __init__(self, why: str, *, again: bool = False, wait_seconds: float = 0.0) -> None:
        super().__init__(why)
        self.why, self.again, self.wait_seconds = why, again, wait_seconds


class Connection(Protocol):
    """Whatever has a socket once it is connected."""

    sock: Any


class Deadline:
    """The time that a message has, all tries and pauses included. `clock` counts seconds from any point."""

    def __init__(self, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self.clock, self.sleep = clock, sleep
        self.seconds, self._end = seconds, clock() + seconds
        self._open: list[Connection] = []
        self._lock = Lock()
        self._over = False

    @property
    def remaining(self) -> float:
        """Seconds left; never so few that a socket would count as one that does not block."""
        return max(self._end - self.clock(), 0.001)

    @property
    def connecting(self) -> float:
        """Seconds for opening a connection."""
        return min(self.remaining, CONNECT_SECONDS)

    @property
    def over(self) -> bool:
        """Whether the time is up, or was cut."""
        return self._over or self.clock() >= self._end

    def holds(self, connection: Connection) -> None:
        """Remember a connection, so that `cut` ends it wherever it waits."""
        with self._lock:
            self._open.append(connection)

    def cut(self) -> None:
        """End all connections: a peer that sends a byte now and then would keep one for hours."""
        with self._lock:
            self._over = True
            for connection in self._open:
                with suppress(OSError, ValueError, AttributeError):
                    connection.sock.shutdown(socket.SHUT_RDWR)


def deliver(channel: str, attempt: Callable[[Deadline], None], deadline: Deadline, secrets: Sequence[str]) -> Delivery:
    """Try until it arrives, trying is of no use, or the time is up. Never raises."""
    began, tries = deadline.clock(), 0
    while True:
        tries += 1
        try:
            attempt(deadline)
        except Exception as error:  # noqa: BLE001 - the border of one channel: its failure is told, never passed on
            failure = explained(error)
        else:
            return Delivery(channel, "", tries, deadline.clock() - began)
        pause = max(failure.wait_seconds, PAUSE_SECONDS * 2 ** (tries - 1))
        if not failure.again or tries >= MOST_TRIES or deadline.over or pause >= deadline.remaining:
            # Masked before it is cut: half a secret would not be recognised.
            return Delivery(channel, safe(failure.why, secrets)[:LONGEST_ERROR], tries, deadline.clock() - began)
        deadline.sleep(pause)


def explained(error: BaseException) -> NotDelivered:
    """The failure in our words."""
    if isinstance(error, URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, NotDelivered):
        return error
    if isinstance(error, smtplib.SMTPException):
        return _explained_smtp(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return NotDelivered(f"its certificate is not trusted: {words(error.verify_message)}")
    if isinstance(error, ssl.SSLError):
        return NotDelivered(f"no TLS with it: {words(error.reason or 'the connection was closed')}")
    if isinstance(error, socket.gaierror):
        return NotDelivered("its name could not be resolved", again=error.errno == socket.EAI_AGAIN)
    if isinstance(error, TimeoutError):
        return NotDelivered("no answer in time", again=True)
    if isinstance(error, ConnectionRefusedError):
        return NotDelivered("connection refused", again=True)
    if isinstance(error, ConnectionError | EOFError):
        return NotDelivered("it closed the connection", again=True)
    if isinstance(error, OSError) and error.strerror:
        return NotDelivered(words(error.strerror), again=True)
    return NotDelivered(f"an error that this program did not foresee ({type(error).__name__})")


def _explained_smtp(error: smtplib.SMTPException) -> NotDelivered:
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return NotDelivered(f"login refused: {error.smtp_code} {words(error.smtp_error)}", again=error.smtp_code < 500)
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        refused = next(iter(error.recipients.values()))
        return NotDelivered(f"every recipient refused: {refused[0]} {words(refused[1])}", again=refused[0] < 500)
    if isinstance(error, smtplib.SMTPResponseException):
        again = 0 < error.smtp_code < 500
        return NotDelivered(f"it answered {error.smtp_code} {words(error.smtp_error)}", again=again)
    if isinstance(error, smtplib.SMTPServerDisconnected):
        # Source: smtplib.SMTP.getreply raises it for a time-out too.
        if isinstance(error.__context__, TimeoutError):
            return explained(error.__context__)
        return NotDelivered("it closed the connection", again=True)
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return NotDelivered("it does not offer what SMTP_SECURITY or the login needs; nothing was sent unprotected")
    return NotDelivered(f"an error of the mail protocol ({type(error).__name__})")


def words(said: object) -> str:
    """A server's or a library's words on one line; `deliver` masks and cuts them."""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return " ".join(text.split())
