"""The messages of a run: when it starts, and when it ends.

The run continues while the first message is sent, and waits for the last. A failed delivery becomes a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rolling_upgrade import rendering
from rolling_upgrade.console import identity
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.model import Channels, Environment, HostResult, Notice, Occasion, Summary, short_digest
from rolling_upgrade.engine.plan import Change, Plan
from rolling_upgrade.engine.rollout import HostOutcome, HostRun
from rolling_upgrade.errors import PROGRAM, ExitCode
from rolling_upgrade.features.notify.send import Sending, send
from rolling_upgrade.features.notify.text import version_changes

#: The occasion for each exit code; an interrupted run was undone.
_PHASES = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "undone",
    ExitCode.INTERRUPTED: "undone",
    ExitCode.LOCKED: "partly",
    ExitCode.PARTLY_DONE: "partly",
    ExitCode.UNDO_FAILED: "failed",
}
#: Lines of each host's cause: the error, then the container's last output.
CAUSE_LINES = 12


class RunNotifier:
    """Sends the messages of one run; none for a run that changes no host, or without a configured channel."""

    def __init__(self, environment: Environment, context: RunContext, action: str) -> None:
        self._environment, self._context = environment, context
        # An unknown action must fail here, before any host is locked.
        self._occasions = {phase: Occasion(f"{action} {phase}") for phase in ("started", *_PHASES.values())}
        self._channels = channels(environment)
        self._notice: Notice | None = None
        self._sendings: list[Sending] = []

    def started(self, host_runs: Sequence[HostRun]) -> None:
        """Send the first message, once all hosts are locked; `host_runs` are the hosts to change."""
        if not host_runs or not self._channels.configured:
            return
        app = host_runs[0].application
        plans = [host_run.plan for host_run in host_runs]
        self._notice = Notice(
            self._occasions["started"],
            app.name,
            self._environment.name,
            self._context.run_id,
            self._context.clock(),
            hosts=tuple(plan.host for plan in plans),
            who=identity.name(),
            target=_target(plans),
            changes=tuple(version_changes(plans)),
        )
        self._send(self._notice)

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
                occasion=self._occasions[_PHASES[ExitCode(summary.exit_code)]],
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
        read, secrets = rendering.notice_template, self._environment.secrets
        self._sendings.append(send(notice, self._channels, read=read, secrets=secrets))


def channels(environment: Environment) -> Channels:
    """The channels of an environment; all its hosts have the same."""
    return environment.targets[0].application.channels


def _target(plans: Sequence[Plan]) -> str:
    """The tags of the changed services, or the restored backup; '' when no service changes."""
    restored = [plan.record.target for plan in plans if plan.result is HostResult.RESTORED and plan.record]
    images = [service.wanted for plan in plans for service in plan.services if service.change is not Change.KEEP]
    return ", ".join(dict.fromkeys(restored or [image.tag or short_digest(image.digest) for image in images]))


def _causes(outcomes: Sequence[HostOutcome]) -> Iterator[str]:
    for outcome in outcomes:
        lines = outcome.summary.cause.strip().splitlines()
        if lines:
            host = outcome.summary.host
            yield lines[0] if lines[0].startswith(host) else f"{host}: {lines[0]}"
            yield from (f"  {line}" for line in lines[1:CAUSE_LINES])
