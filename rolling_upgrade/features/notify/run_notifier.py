"""What people who do not watch are told of a run: that it began, and how it ended. Neither changes how it ends.

The first message is on its way while the run goes on; the last is waited for. A channel that fails is a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from fabfile import render
from fabfile.errors import ExitCode
from fabfile.model import Channels, Environment, HostResult, Notice, Occasion, Summary
from fabfile.notify.delivery import Delivery
from fabfile.notify.send import Sending, begin
from fabfile.plans.passages import passages, short
from fabfile.plans.step import Change, Plan
from fabfile.remote.execute import Run
from fabfile.remote.rollout import Ending, Member
from fabfile.workflows import operator

#: What an exit code means to people; 130 is a run that was interrupted and undone.
_TURNS = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "undone",
    ExitCode.INTERRUPTED: "undone",
    ExitCode.LOCKED: "partly",
    ExitCode.PARTLY_DONE: "partly",
    ExitCode.UNDO_FAILED: "failed",
}
#: How many lines of each host's cause are told: the first says it, the next are the container's last words.
CAUSE_LINES = 12


class Telling:
    """The messages of one run; nothing is sent for a run that has begun nothing, or where no channel is configured."""

    def __init__(self, environment: Environment, run: Run, action: str) -> None:
        self._environment, self._run = environment, run
        # Found before anything is locked: an action without words is a mistake of this program.
        self._occasions = {turn: Occasion(f"{action} {turn}") for turn in ("started", *_TURNS.values())}
        self._channels = channels(environment)
        self._notice: Notice | None = None
        self._sendings: list[Sending] = []

    def begun(self, members: Sequence[Member]) -> None:
        """Every host is locked, and these are to change."""
        if not members or not self._channels.configured:
            return
        app = members[0].application
        plans = [member.plan for member in members]
        self._notice = Notice(
            self._occasions["started"],
            app.name,
            self._environment.name,
            self._run.release,
            self._run.clock(),
            hosts=tuple(plan.host for plan in plans),
            who=operator.name(),
            target=_target(plans),
            passages=tuple(passages(plans)),
        )
        self._send(self._notice)

    def ended(self, summary: Summary, endings: Sequence[Ending]) -> tuple[str, ...]:
        """Say how the run ended; gives a warning for each channel that could not be told."""
        if self._notice is None:
            return ()
        results = [(ending.summary.host, ending.summary.result) for ending in endings]
        told = [(host, result) for host, result in results if host in self._notice.hosts]
        self._send(
            replace(
                self._notice,
                occasion=self._occasions[_TURNS[ExitCode(summary.exit_code)]],
                at=self._run.clock(),
                results=tuple(told) if summary.exit_code != ExitCode.DONE else (),
                seconds=summary.seconds,
                cause="\n".join(_causes(endings)),
                next_command=self._next(summary),
            )
        )
        return problems(delivery for sending in self._sendings for delivery in sending.wait())

    def _send(self, notice: Notice) -> None:
        read, secrets = render.notice_template, self._environment.secrets
        self._sendings.append(begin(notice, self._channels, read=read, secrets=secrets))

    def _next(self, summary: Summary) -> str:
        return summary.undo_command if summary.exit_code == ExitCode.DONE else f"inv status --env {summary.environment}"


def channels(environment: Environment) -> Channels:
    """The channels of an environment: the same on all its hosts."""
    return environment.targets[0].application.channels


def problems(deliveries: Iterable[Delivery]) -> tuple[str, ...]:
    """A sentence for each channel that failed, once however many messages it lost."""
    return tuple(dict.fromkeys(f"{one.channel} was not told: {one.error}" for one in deliveries if not one.ok))


def _target(plans: Sequence[Plan]) -> str:
    """What the run brings, in a word: the tags of what changes, or a backup; '' when no service changes."""
    restored = [plan.record.target for plan in plans if plan.result is HostResult.RESTORED and plan.record]
    wanted = [service.wanted for plan in plans for service in plan.services if service.change is not Change.KEEP]
    return ", ".join(dict.fromkeys(restored or [image.tag or short(image) for image in wanted]))


def _causes(endings: Sequence[Ending]) -> Iterator[str]:
    for ending in endings:
        lines = ending.summary.cause.strip().splitlines()
        if lines:
            host = ending.summary.host
            yield lines[0] if lines[0].startswith(host) else f"{host}: {lines[0]}"
            yield from (f"  {line}" for line in lines[1:CAUSE_LINES])
