"""A real mail server on loopback with optional TLS and login."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import mailparser
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

from rolling_upgrade.engine.model import Mail, Security

USER, PASSWORD = "ark", "c0rrect-h0rse&battery"


@dataclass
class Mailbox:
    """The received mails, the responses to recipients in `refused`, and the next responses to mails in `answers`."""

    port: int = 0
    envelopes: list[Envelope] = field(default_factory=list)
    protected: list[bool] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)
    login: bool = False

    async def handle_MAIL(  # noqa: N802 - the library's name
        self, server: Any, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Require a login where the server has one."""
        if self.login and not session.authenticated:
            return "530 5.7.0 Authentication required"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(  # noqa: N802 - the library's name
        self, server: Any, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Accept or refuse one recipient."""
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Store a mail, or give the next prescribed answer."""
        if self.answers:
            return self.answers.pop(0)
        self.envelopes.append(envelope)
        self.protected.append(session.ssl is not None or server.transport.get_extra_info("ssl_object") is not None)
        return "250 OK"

    @property
    def raw(self) -> list[bytes]:
        """The bytes of each mail."""
        return [envelope.original_content or b"" for envelope in self.envelopes]

    @property
    def mails(self) -> list[Any]:
        """Each mail, parsed by mail-parser."""
        return [mailparser.parse_from_bytes(raw) for raw in self.raw]

    def channel(self, security: Security, **changes: Any) -> Mail:
        """Return the configuration of a channel to this server."""
        values: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.port,
            "sender": "MemoryArk <ark@mail.example.org>",
            "recipients": ("Ann <ann@example.org>", "bob@example.org"),
            "security": security,
        }
        return Mail(**(values | changes))


class _EphemeralPortController(Controller):
    """A server on a port that the kernel chose."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        super()._trigger_server()  # type: ignore[no-untyped-call]


@contextmanager
def mailbox(
    tls: ssl.SSLContext | None = None,
    *,
    security: Security = Security.NONE,
    login: bool = False,
    address: str = "127.0.0.1",
) -> Iterator[Mailbox]:
    """Run a mail server while the block runs; with `login` it accepts mail only after a login."""
    box = Mailbox(login=login)

    def authenticate(server: Any, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        good = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=good, handled=good)

    named: dict[str, Any] = {"authenticator": authenticate} if login else {}
    if security is Security.STARTTLS:
        named |= {"tls_context": tls, "require_starttls": True}
    if security is Security.TLS:
        # aiosmtpd does not detect implicit TLS.
        named |= {"ssl_context": tls, "auth_require_tls": False}
    controller = _EphemeralPortController(box, hostname=address, port=0, **named)
    controller.start()
    box.port = controller.port
    try:
        yield box
    finally:
        controller.stop()
