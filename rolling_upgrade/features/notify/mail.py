"""The mail channel: a message as text and HTML, sent over SMTP.

The mails of one run, or of one alert, are a thread: the first has the thread's Message-ID, the others refer to it.
"""

from __future__ import annotations

import hashlib
import html
import re
import smtplib
import ssl
from contextlib import suppress
from datetime import datetime, timezone
from email.headerregistry import Address, HeaderRegistry, MessageIDHeader
from email.message import EmailMessage
from email.policy import SMTP
from string import Template
from typing import Any

from rolling_upgrade.engine.model import Mail, Notice, Security, Severity
from rolling_upgrade.features.notify.delivery import Deadline, NotDelivered, explain, one_line
from rolling_upgrade.features.notify.text import Field, Message, Read

#: The phases that start a thread; an operator's message and a test have none.
_FIRST = frozenset({"", "started", "failing"})
_COLORS = {Severity.INFO: "#3367d6", Severity.WARNING: "#b06000", Severity.CRITICAL: "#c5221f"}
_SUCCESS = "#188038"
QUIT_SECONDS = 1.0


def _policy() -> Any:
    """The policy for headers and encodings. Untyped, long message ids would be encoded."""
    headers = HeaderRegistry()
    for name in ("in-reply-to", "references"):
        headers.map_to_type(name, MessageIDHeader)  # type: ignore[arg-type]
    # Not every server accepts non-ASCII bytes.
    return SMTP.clone(header_factory=headers, cte_type="7bit")


def build_email(notice: Notice, message: Message, mail: Mail, read: Read) -> EmailMessage:
    """Build the mail. Raises OSError for a missing template."""
    email = EmailMessage(policy=_policy())
    sender = _address(mail.sender)
    email["From"] = sender
    email["To"] = [_address(recipient) for recipient in mail.recipients]
    email["Subject"] = message.subject
    email["Date"] = datetime.fromtimestamp(notice.at, timezone.utc)
    root = _id(notice.thread, sender.domain)
    first = notice.occasion.phase in _FIRST
    email["Message-ID"] = root if first else _id(notice.id, sender.domain)
    if not first:
        email["In-Reply-To"] = root
        email["References"] = root
    email["Auto-Submitted"] = "auto-generated"  # Source: RFC 3834
    email["List-Id"] = _list_id(notice, sender.domain)  # Source: RFC 2919
    email.set_content(message.plain)
    email.add_alternative(_html(notice, message, read), subtype="html")
    return email


def _address(text: str) -> Address:
    """Parse `Name <address>` or an address alone, which the configuration has validated."""
    name, _, rest = text.strip().rpartition("<")
    return Address(display_name=name.strip().strip('"'), addr_spec=rest.removesuffix(">"))


def _id(text: str, domain: str) -> str:
    """A message id derived from a text: readable for a short plain text, a hash otherwise."""
    readable = len(text) <= 80 and re.fullmatch(r"[A-Za-z0-9-]+(?: [A-Za-z0-9-]+)*", text)
    name = text.replace(" ", ".") if readable else hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return f"<{name}@{domain}>"


def _list_id(notice: Notice, domain: str) -> str:
    names = (re.sub(r"[^A-Za-z0-9-]+", "-", part)[:60] for part in (notice.environment, notice.application))
    return f"<{'.'.join(names)}.{domain}>"


def _html(notice: Notice, message: Message, read: Read) -> str:
    return Template(read("mail.html")).substitute(
        language=html.escape(message.language),
        color=_SUCCESS if notice.occasion.is_success else _COLORS[notice.severity],
        subject=html.escape(message.subject),
        lead=html.escape(message.lead),
        rows="".join(_row(field) for field in message.fields),
        footer=html.escape(message.footer),
    )


def _row(field: Field) -> str:
    tag = "pre" if field.verbatim else "div"
    label, value = html.escape(field.label), html.escape(field.value)
    left = "text-align: left; vertical-align: top; padding: 4px 16px 4px 0"
    right = "margin: 0; white-space: pre-wrap; overflow-wrap: anywhere"
    cell = f'<{tag} style="{right}">{value}</{tag}>'
    return f'<tr><th style="{left}">{label}</th><td style="padding: 4px 0">{cell}</td></tr>\n'


def send(mail: Mail, email: EmailMessage, deadline: Deadline) -> None:
    """Send the mail once. Raises NotDelivered, or an error of the library while the mail has not been sent yet."""
    context = ssl.create_default_context()
    smtp = _connect(mail, context, deadline)
    try:
        if mail.security is Security.STARTTLS:
            smtp.starttls(context=context)
        if mail.password:
            smtp.login(mail.user, mail.password)
        _transmit(smtp, email)
        _quit(smtp, deadline)
    finally:
        smtp.close()


def _connect(mail: Mail, context: ssl.SSLContext, deadline: Deadline) -> smtplib.SMTP:
    """Open a connection that the deadline can cut, and whose timeout is the remaining time."""
    base, options = (smtplib.SMTP_SSL, {"context": context}) if mail.security is Security.TLS else (smtplib.SMTP, {})

    class Limited(base):  # type: ignore[misc,valid-type]
        def connect(self, *arguments: Any, **named: Any) -> tuple[int, bytes]:
            deadline.register(self)
            answer: tuple[int, bytes] = super().connect(*arguments, **named)
            return answer

    # Without a name, the library would look up this machine's name, which can be slow.
    smtp: smtplib.SMTP = Limited(
        mail.host, mail.port, local_hostname="[127.0.0.1]", timeout=deadline.connecting, **options
    )
    if smtp.sock is not None:
        smtp.sock.settimeout(deadline.remaining)
        own = smtp.sock.getsockname()[0]
        smtp.local_hostname = f"[IPv6:{own}]" if ":" in own else f"[{own}]"
    return smtp


def _quit(smtp: smtplib.SMTP, deadline: Deadline) -> None:
    """End the session; the server has the mail, so errors no longer matter."""
    with suppress(OSError, AttributeError, smtplib.SMTPException):
        smtp.sock.settimeout(min(deadline.remaining, QUIT_SECONDS))  # type: ignore[union-attr]
        smtp.quit()


def _transmit(smtp: smtplib.SMTP, email: EmailMessage) -> None:
    try:
        refused = smtp.send_message(email)
    except smtplib.SMTPServerDisconnected as error:
        why = explain(error).why
        raise NotDelivered(f"{why}, while the mail was being sent: it may have arrived") from error
    if refused:
        refusals = "; ".join(f"{recipient}: {code} {one_line(reply)}" for recipient, (code, reply) in refused.items())
        raise NotDelivered(f"some recipients were refused, the others have the mail: {refusals}")
