"""`inv notify` and `inv notify.test`: send an operator's message, or test every channel."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rolling_upgrade import config, rendering
from rolling_upgrade.console import identity
from rolling_upgrade.console.output import print_lines
from rolling_upgrade.engine.model import Channels, Environment, Notice, Occasion, Severity, new_run_id
from rolling_upgrade.errors import PROGRAM, ConfigError, ExitCode, usage_error
from rolling_upgrade.features.notify.delivery import Delivery
from rolling_upgrade.features.notify.run_notifier import channels
from rolling_upgrade.features.notify.send import send
from rolling_upgrade.features.notify.text import LONGEST_TEXT

_KEYS = {"slack": "NOTIFY_SLACK", "mail": "NOTIFY_MAIL", "webhook": "NOTIFY_WEBHOOK"}


def notify(env: str | None, *, root: Path, message: str = "", severity: str = "info") -> ExitCode:
    """Send the operator's message. FAILED when a channel failed, or none accepts the severity."""
    _check(message, severity)
    environment = _environment(env, root)
    notice = replace(_notice(environment, Occasion.MESSAGE), text=message, level=Severity(severity))
    return _send(environment, notice, notice.severity)


def send_test(env: str | None, *, root: Path) -> ExitCode:
    """Send a test to every channel that is not off. FAILED when one failed."""
    environment = _environment(env, root)
    return _send(environment, _notice(environment, Occasion.TEST), Severity.CRITICAL)


def _check(message: str, severity: str) -> None:
    issues = []
    known = [severity.value for severity in Severity]
    if severity not in known:
        issues.append(("--severity", repr(severity), " or ".join(known)))
    if not message.strip():
        issues.append(("--message", "", "the text of the message"))
    if len(message) > LONGEST_TEXT:
        issues.append(("--message", f"{len(message)} characters", f"at most {LONGEST_TEXT}"))
    if issues:
        raise usage_error(*issues)


def _environment(env: str | None, root: Path) -> Environment:
    """Load the environment. Raises ConfigError if all channels are missing or off."""
    environment = config.load(env, root=root)
    if not channels(environment).accepting(Severity.CRITICAL):
        raise ConfigError(
            f"{environment.name}: no channel is configured, or all are off; nothing was sent.",
            next_step="fill in SLACK_WEBHOOK, WEBHOOK_URL or the SMTP_ keys of its env file (docs/settings.md)",
        )
    return environment


def _notice(environment: Environment, occasion: Occasion) -> Notice:
    app = environment.targets[0].application
    return Notice(occasion, app.name, environment.name, new_run_id(), time.time(), who=identity.name())


def _send(environment: Environment, notice: Notice, severity: Severity) -> ExitCode:
    chosen = channels(environment)
    deliveries = send(notice, chosen, read=rendering.notice_template, secrets=environment.secrets).wait()
    failed = not deliveries or any(not delivery.ok for delivery in deliveries)
    lines = [*_results(deliveries), *_skipped(chosen, severity)]
    if failed:
        lines.append(f"Next: correct the env file, then {PROGRAM} notify.test --env {environment.name}")
    print_lines(lines, environment.secrets)
    return ExitCode.FAILED if failed else ExitCode.DONE


def _results(deliveries: Sequence[Delivery]) -> Iterator[str]:
    for delivery in deliveries:
        tries = f"; {delivery.tries} tries" if delivery.tries > 1 else ""
        result = "sent" if delivery.ok else f"NOT SENT: {delivery.error}"
        yield f"{delivery.channel:<8} {result} ({delivery.seconds:.1f} s{tries})"


def _skipped(chosen: Channels, severity: Severity) -> Iterator[str]:
    for name, channel in chosen.configured:
        if channel.lowest is None:
            yield f"{name:<8} off ({_KEYS[name]})"
        elif not severity.reaches(channel.lowest):
            yield f"{name:<8} skipped: it accepts {channel.lowest.value} and above ({_KEYS[name]})"
