"""A message as mail: text and HTML in one, threaded by what it is about; and its way to the mail server.

One run, or one alert, is one thread: its first mail has the thread's own Message-ID, the others refer to it.
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

from fabfile.model.channels import Mail, Security
from fabfile.model.notice import Notice, Severity
from fabfile.notify.delivery import Deadline, NotDelivered, explained, words
from fabfile.notify.text import Field, Read, Told

#: What begins a thread; a message or a test is a thread of its own.
_FIRST = frozenset({"", "started", "failing"})
_COLORS = {Severity.INFO: "#3367d6", Severity.WARNING: "#b06000", Severity.CRITICAL: "#c5221f"}
_WELL = "#188038"
GOODBYE_SECONDS = 1.0


def _policy() -> Any:
    """The policy of mail on the wire; without their type, long ids would be encoded and no longer be ids."""
    headers = HeaderRegistry()
    for name in ("in-reply-to", "references"):
        headers.map_to_type(name, MessageIDHeader)  # type: ignore[arg-type]
    # Not every server takes bytes beyond ASCII.
    return SMTP.clone(header_factory=headers, cte_type="7bit")


def message(notice: Notice, told: Told, mail: Mail, read: Read) -> EmailMessage:
    """The mail, complete. Raises OSError when a template is missing."""
    found = EmailMessage(policy=_policy())
    sender = _address(mail.sender)
    found["From"] = sender
    found["To"] = [_address(one) for one in mail.recipients]
    found["Subject"] = told.subject
    found["Date"] = datetime.fromtimestamp(notice.at, timezone.utc)
    root = _id(notice.thread, sender.domain)
    first = notice.occasion.turn in _FIRST
    found["Message-ID"] = root if first else _id(notice.id, sender.domain)
    if not first:
        found["In-Reply-To"] = root
        found["References"] = root
    found["Auto-Submitted"] = "auto-generated"  # Source: RFC 3834
    found["List-Id"] = _list_id(notice, sender.domain)  # Source: RFC 2919
    found.set_content(told.plain)
    found.add_alternative(_html(notice, told, read), subtype="html")
    return found


def _address(text: str) -> Address:
    """`Name <address>` or an address alone, as the configuration has checked it."""
    name, _, rest = text.strip().rpartition("<")
    return Address(display_name=name.strip().strip('"'), addr_spec=rest.removesuffix(">"))


def _id(text: str, domain: str) -> str:
    """A message id that is the same for the same text, and readable where the text allows it."""
    readable = len(text) <= 80 and re.fullmatch(r"[A-Za-z0-9-]+(?: [A-Za-z0-9-]+)*", text)
    known = text.replace(" ", ".") if readable else hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return f"<{known}@{domain}>"


def _list_id(notice: Notice, domain: str) -> str:
    names = (re.sub(r"[^A-Za-z0-9-]+", "-", part)[:60] for part in (notice.environment, notice.application))
    return f"<{'.'.join(names)}.{domain}>"


def _html(notice: Notice, told: Told, read: Read) -> str:
    return Template(read("mail.html")).substitute(
        language=html.escape(told.language),
        color=_WELL if notice.occasion.well else _COLORS[notice.severity],
        subject=html.escape(told.subject),
        lead=html.escape(told.lead),
        rows="".join(_row(field) for field in told.fields),
        footer=html.escape(told.footer),
    )


def _row(field: Field) -> str:
    tag = "pre" if field.verbatim else "div"
    label, value = html.escape(field.label), html.escape(field.value)
    left = "text-align: left; vertical-align: top; padding: 4px 16px 4px 0"
    right = "margin: 0; white-space: pre-wrap; overflow-wrap: anywhere"
    cell = f'<{tag} style="{right}">{value}</{tag}>'
    return f'<tr><th style="{left}">{label}</th><td style="padding: 4px 0">{cell}</td></tr>\n'


def post(mail: Mail, found: EmailMessage, deadline: Deadline) -> None:
    """Hand it to the server once. Raises NotDelivered, or what the library raises before the mail was handed over."""
    context = ssl.create_default_context()
    smtp = _connected(mail, context, deadline)
    try:
        if mail.security is Security.STARTTLS:
            smtp.starttls(context=context)
        if mail.password:
            smtp.login(mail.user, mail.password)
        _hand_over(smtp, found)
        _leave(smtp, deadline)
    finally:
        smtp.close()


def _connected(mail: Mail, context: ssl.SSLContext, deadline: Deadline) -> smtplib.SMTP:
    """A connection that the deadline can cut, and that waits for answers as long as there is time."""
    kind, more = (smtplib.SMTP_SSL, {"context": context}) if mail.security is Security.TLS else (smtplib.SMTP, {})

    class Held(kind):  # type: ignore[misc,valid-type]
        def connect(self, *arguments: Any, **named: Any) -> tuple[int, bytes]:
            deadline.holds(self)
            answer: tuple[int, bytes] = super().connect(*arguments, **named)
            return answer

    # A name is given, because the library would ask the resolver for this machine's own, which can take long.
    smtp: smtplib.SMTP = Held(mail.host, mail.port, local_hostname="[127.0.0.1]", timeout=deadline.connecting, **more)
    if smtp.sock is not None:
        smtp.sock.settimeout(deadline.remaining)
        own = smtp.sock.getsockname()[0]
        smtp.local_hostname = f"[IPv6:{own}]" if ":" in own else f"[{own}]"
    return smtp


def _leave(smtp: smtplib.SMTP, deadline: Deadline) -> None:
    """Say goodbye; the server has the mail, so that nothing that goes wrong now matters."""
    with suppress(OSError, AttributeError, smtplib.SMTPException):
        smtp.sock.settimeout(min(deadline.remaining, GOODBYE_SECONDS))  # type: ignore[union-attr]
        smtp.quit()


def _hand_over(smtp: smtplib.SMTP, found: EmailMessage) -> None:
    try:
        refused = smtp.send_message(found)
    except smtplib.SMTPServerDisconnected as error:
        why = explained(error).why
        raise NotDelivered(f"{why}, after the mail was begun: it may have arrived") from error
    if refused:
        named = "; ".join(f"{who}: {code} {words(said)}" for who, (code, said) in refused.items())
        raise NotDelivered(f"some recipients refused, the others have it: {named}")
