"""Messages that a person sends: their own words, or a test of every channel. The story only; no host is contacted."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from fabfile import config, render
from fabfile.errors import ConfigError, ExitCode, Mistake
from fabfile.model import Channels, Environment, Notice, Occasion, Severity
from fabfile.notify.delivery import Delivery
from fabfile.notify.send import send
from fabfile.notify.text import LONGEST_TEXT
from fabfile.report import tell
from fabfile.workflows import operator
from fabfile.workflows.telling import channels

_KEYS = {"slack": "NOTIFY_SLACK", "mail": "NOTIFY_MAIL", "webhook": "NOTIFY_WEBHOOK"}


@dataclass(frozen=True)
class Request:
    """What the operator asked for."""

    environment: str | None
    root: Path
    message: str = ""
    severity: str = "info"


def notify(request: Request) -> ExitCode:
    """Send a person's message. FAILED when a channel failed, or when none takes such a message."""
    _check(request)
    environment = _environment(request)
    notice = replace(_notice(environment, Occasion.MESSAGE), text=request.message, level=Severity(request.severity))
    return _send(environment, notice, notice.severity)


def try_out(request: Request) -> ExitCode:
    """Send a test over every channel that is not off. FAILED when one failed."""
    environment = _environment(request)
    return _send(environment, _notice(environment, Occasion.TEST), Severity.CRITICAL)


def _check(request: Request) -> None:
    mistakes = []
    known = [severity.value for severity in Severity]
    if request.severity not in known:
        mistakes.append(Mistake("command line", "--severity", repr(request.severity), " or ".join(known)))
    if not request.message.strip():
        mistakes.append(Mistake("command line", "--message", "nothing", "what to say"))
    if len(request.message) > LONGEST_TEXT:
        found = f"{len(request.message)} characters"
        mistakes.append(Mistake("command line", "--message", found, f"{LONGEST_TEXT} at the most"))
    if mistakes:
        raise ConfigError("The command line has a mistake; nothing was contacted.", mistakes)


def _environment(request: Request) -> Environment:
    """The environment. Raises ConfigError where no channel could be told anything."""
    environment = config.load(request.environment, root=request.root)
    if not channels(environment).taking(Severity.CRITICAL):
        raise ConfigError(
            f"{environment.name}: no channel is configured, or all are off; nothing was sent.",
            next_step="fill in SLACK_WEBHOOK, WEBHOOK_URL or the SMTP_ keys of its env file (docs/settings.md)",
        )
    return environment


def _notice(environment: Environment, occasion: Occasion) -> Notice:
    app = environment.targets[0].application
    thread = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    return Notice(occasion, app.name, environment.name, thread, time.time(), who=operator.name())


def _send(environment: Environment, notice: Notice, severity: Severity) -> ExitCode:
    chosen = channels(environment)
    deliveries = send(notice, chosen, read=render.notice_template, secrets=environment.secrets)
    failed = not deliveries or any(not delivery.ok for delivery in deliveries)
    lines = [*_told(deliveries), *_not_asked(chosen, severity)]
    if failed:
        lines.append(f"Next: correct the env file, then inv notify.test --env {environment.name}")
    tell(lines, sys.stdout, environment.secrets)
    return ExitCode.FAILED if failed else ExitCode.DONE


def _told(deliveries: Sequence[Delivery]) -> Iterator[str]:
    for one in deliveries:
        tries = f"; {one.tries} tries" if one.tries > 1 else ""
        if one.ok:
            yield f"{one.channel:<8} told ({one.seconds:.1f} s{tries})"
        else:
            yield f"{one.channel:<8} NOT TOLD: {one.error} ({one.seconds:.1f} s{tries})"


def _not_asked(chosen: Channels, severity: Severity) -> Iterator[str]:
    for name, channel in chosen.configured:
        if channel.lowest is None:
            yield f"{name:<8} off ({_KEYS[name]})"
        elif not severity.reaches(channel.lowest):
            yield f"{name:<8} not told: it takes {channel.lowest.value} and above ({_KEYS[name]})"
