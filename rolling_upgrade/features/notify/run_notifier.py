"""The messages of a run: when it starts, and when it ends.

The run continues while the first message is sent, and waits for the last. A failed delivery becomes a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rolling_upgrade import rendering
from rolling_upgrade.console import identity
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.masking import mask
from rolling_upgrade.engine.model import Channels, Environment, Notice, Occasion, Summary
from rolling_upgrade.engine.plan import Plan, target
from rolling_upgrade.engine.rollout import HostOutcome, HostRun
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.errors import PROGRAM, ExitCode
from rolling_upgrade.features.notify.endings import cause, occasion
from rolling_upgrade.features.notify.text import version_changes

if TYPE_CHECKING:
    from rolling_upgrade.features.notify.send import Sending


class RunNotifier:
    """Sends the messages of one run; none for a run that changes no host, or without a configured channel."""

    def __init__(self, environment: Environment, context: RunContext, action: str) -> None:
        self._environment, self._context = environment, context
        # An unknown action must fail here, before any host is locked.
        self._started, self._action = Occasion(f"{action} started"), action
        self._channels = channels(environment)
        self._notice: Notice | None = None
        self._sendings: list[Sending] = []

    def started(self, host_runs: Sequence[HostRun]) -> None:
        """Send the first message, once all hosts are locked; `host_runs` are the hosts to change."""
        self._notice = self.notice([host_run.plan for host_run in host_runs])
        if self._notice is not None:
            self._send(self._notice)

    def notice(self, plans: Sequence[Plan]) -> Notice | None:
        """Return the first message of a run with these plans; None without a plan or a configured channel."""
        if not plans or not self._channels.configured:
            return None
        return Notice(
            self._started,
            self._environment.targets[0].application.name,
            self._environment.name,
            self._context.run_id,
            self._context.clock(),
            hosts=tuple(plan.host for plan in plans),
            who=identity.name(),
            target=target(plans),
            changes=tuple(version_changes(plans)),
        )

    def of_host(self, plan: Plan) -> tuple[Notice | None, Channels, tuple[str, ...]]:
        """Return the message about the end of one host, still without its end, its channels, and the secrets to mask.

        These are the secrets of the host's own application: no host gets those of another one.
        """
        notice = self.notice([plan])
        return notice, self._channels, self._secrets_of(plan.host) if notice is not None else ()

    def _secrets_of(self, host: str) -> tuple[str, ...]:
        applications = [target.application for target in self._environment.targets if target.name == host]
        text = "\n".join(_texts(to_plain(applications, secrets=True)))
        return tuple(secret for secret in self._environment.secrets if mask(text, [secret]) != text)

    def ended(self, summary: Summary, outcomes: Sequence[HostOutcome]) -> tuple[str, ...]:
        """Send the last message; return a warning for each channel that failed."""
        if self._notice is None:
            return ()
        results = [(outcome.summary.host, outcome.summary.result) for outcome in outcomes]
        changed = [(host, result) for host, result in results if host in self._notice.hosts]
        done = summary.exit_code == ExitCode.DONE
        self._send(
            replace(
                self._notice,
                occasion=occasion(self._action, ExitCode(summary.exit_code)),
                at=self._context.clock(),
                results=() if done else tuple(changed),
                seconds=summary.seconds,
                cause="\n".join(_causes(outcomes)),
                next_command=summary.undo_command if done else f"{PROGRAM} status --env {summary.environment}",
            )
        )
        failures = [delivery for sending in self._sendings for delivery in sending.wait() if not delivery.ok]
        # Report a failure that several messages share only once.
        return tuple(dict.fromkeys(f"{failed.channel}: message not delivered: {failed.error}" for failed in failures))

    def _send(self, notice: Notice) -> None:
        # Imports what sends mail, which most runs do not need.
        from rolling_upgrade.features.notify.send import send

        read, secrets = rendering.notice_template, self._environment.secrets
        self._sendings.append(send(notice, self._channels, read=read, secrets=secrets))


def channels(environment: Environment) -> Channels:
    """The channels of an environment; all its hosts have the same."""
    return environment.targets[0].application.channels


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for item in value.values() for text in _texts(item))
    elif isinstance(value, list):
        yield from (text for item in value for text in _texts(item))


def _causes(outcomes: Sequence[HostOutcome]) -> Iterator[str]:
    for outcome in outcomes:
        yield from cause(outcome.summary.host, outcome.summary.cause)
