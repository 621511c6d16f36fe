"""Sends one notice to all channels that accept its severity, in parallel and within a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Thread

from rolling_upgrade.engine.model.notice import Channels, Hook, Mail, Notice, Occasion, Severity
from rolling_upgrade.features.notify import mail, webhooks
from rolling_upgrade.features.notify.delivery import Deadline, Delivery, deliver
from rolling_upgrade.features.notify.text import Read, compose

#: Limit of a notice on all channels together, with retries and pauses.
WITHIN_SECONDS = 9.0
#: Wait for the threads of cut connections, to learn their errors.
CUT_SECONDS = 0.5


class Sending:
    """A notice being sent; each channel has a daemon thread, so that no exit of the process waits for it."""

    def __init__(self, deadline: Deadline, work: Sequence[tuple[str, Callable[[], Delivery]]]) -> None:
        self._deadline = deadline
        self._deliveries: dict[str, Delivery] = {}
        self._names = [name for name, _ in work]
        self._threads = [thread for name, do in work if (thread := self._start(name, do))]

    def _start(self, name: str, do: Callable[[], Delivery]) -> Thread | None:
        thread = Thread(target=self._run, args=(name, do), daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._deliveries[name] = Delivery(name, "this machine cannot start another thread")
            return None
        return thread

    def _run(self, name: str, do: Callable[[], Delivery]) -> None:
        self._deliveries[name] = do()

    def wait(self) -> tuple[Delivery, ...]:
        """Wait for the results. Ctrl-C ends the wait, and is the error of channels that have no result yet."""
        why = f"not finished within {self._deadline.seconds:g} s; it may still arrive"
        try:
            self._join(self._deadline.remaining)
        except KeyboardInterrupt:
            why = "interrupted before a response"
        self._deadline.cut()
        try:
            self._join(CUT_SECONDS)
        except KeyboardInterrupt:
            why = "interrupted before a response"
        return tuple(self._deliveries.get(name) or Delivery(name, why) for name in self._names)

    def _join(self, seconds: float) -> None:
        end = self._deadline.clock() + seconds
        for thread in self._threads:
            thread.join(max(end - self._deadline.clock(), 0))


def send(
    notice: Notice,
    channels: Channels,
    *,
    read: Read,
    secrets: Sequence[str] = (),
    seconds: float = WITHIN_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Sending:
    """Start to send a notice to every channel that accepts its severity; `wait` on the result returns the deliveries.

    `secrets` are masked in the message, in addition to those of the channels.
    """
    hidden = (*secrets, *channels.secrets)
    deadline = Deadline(seconds, time.monotonic, sleep)
    # A test goes to every channel that is not off.
    accepting = channels.accepting(Severity.CRITICAL if notice.occasion is Occasion.TEST else notice.severity)
    chosen = [(name, channel) for name, channel in channels.configured if name in accepting]

    def work(name: str, channel: Hook | Mail) -> Callable[[], Delivery]:
        attempt = _attempt(name, channel, notice, channels.language, read, hidden)
        return lambda: deliver(name, attempt, deadline, hidden)

    return Sending(deadline, [(name, work(name, channel)) for name, channel in chosen])


def _attempt(
    name: str, channel: Hook | Mail, notice: Notice, language: str, read: Read, secrets: Sequence[str]
) -> Callable[[Deadline], None]:
    """One attempt. It renders the message itself, so that a faulty template is an error of the channel."""

    def attempt(deadline: Deadline) -> None:
        message = compose(notice, language, read, secrets)
        if isinstance(channel, Mail):
            mail.send(channel, mail.build_email(notice, message, channel, read), deadline)
        elif name == "slack":
            webhooks.post(channel.url, webhooks.slack_payload(notice, message), deadline)
        else:
            webhooks.post(channel.url, webhooks.webhook_payload(notice, message, secrets), deadline)

    return attempt
