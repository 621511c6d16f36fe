"""From the notification keys to the channels that messages go to. It contacts nothing.

Refused is what could never be delivered, or would give a password away; a channel without an address is not used.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fabfile.config.settings import Settings
from fabfile.model import Channels, Hook, Mail, Security, Severity

if TYPE_CHECKING:
    from fabfile.config.resolution import Values

#: Where mail servers expect TLS from the first byte. Source: RFC 8314, section 3.3.
IMPLICIT_TLS_PORT = 465


def read_channels(settings: Settings, values: Values) -> Channels:
    """The channels of an environment; what cannot work goes to the findings."""
    return Channels(
        slack=_hook(settings.slack_webhook, settings.notify_slack),
        mail=_mail(settings, values),
        webhook=_hook(settings.webhook_url, settings.notify_webhook),
        language=settings.notify_language,
        repeat_seconds=settings.notify_repeat,
    )


def _lowest(word: str) -> Severity | None:
    return None if word == "off" else Severity(word)


def _hook(url: str, lowest: str) -> Hook | None:
    return Hook(url, _lowest(lowest)) if url else None


def _mail(settings: Settings, values: Values) -> Mail | None:
    if not settings.smtp_host:
        _warn_of_rest(settings, values)
        return None
    _check_mail(settings, values)
    return Mail(
        host=settings.smtp_host,
        sender=settings.smtp_from,
        recipients=tuple(re.split(r"\s*,\s*", settings.smtp_to)),
        port=settings.smtp_port,
        user=settings.smtp_user,
        password=settings.smtp_password,
        security=Security(settings.smtp_security),
        lowest=_lowest(settings.notify_mail),
    )


def _warn_of_rest(settings: Settings, values: Values) -> None:
    if settings.smtp_from or settings.smtp_to or settings.smtp_user or settings.smtp_password:
        values.findings.warn(
            f"{values.env_file}: no mail is sent, because SMTP_HOST is empty and other SMTP_ keys are not"
        )


def _check_mail(settings: Settings, values: Values) -> None:
    for key in ("SMTP_FROM", "SMTP_TO"):
        if not values.get(key):
            values.add(key, expected="a value: SMTP_HOST sends mail only together with SMTP_FROM and SMTP_TO")
    for key, other in (("SMTP_USER", "SMTP_PASSWORD"), ("SMTP_PASSWORD", "SMTP_USER")):
        if values.get(other) and not values.get(key):
            values.add(key, expected=f"a value: {other} makes a login only together with it")
    for key, text in (("SMTP_USER", settings.smtp_user), ("SMTP_PASSWORD", settings.smtp_password)):
        if not text.isascii():
            values.add(key, expected="ASCII characters: no other ones travel in a login")
    if settings.smtp_security == "none" and settings.smtp_password:
        values.add("SMTP_SECURITY", expected="starttls or tls: a password does not travel unprotected")
    if settings.smtp_security == "starttls" and settings.smtp_port == IMPLICIT_TLS_PORT:
        values.add("SMTP_SECURITY", expected=f"tls: servers expect it from the first byte on port {IMPLICIT_TLS_PORT}")
