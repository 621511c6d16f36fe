"""Sends one notice to all channels that accept its severity, in parallel and within a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Thread

from rolling_upgrade.engine.model import Channels, Hook, Mail, Notice, Occasion, Severity
from rolling_upgrade.features.notify import mail, slack, webhook
from rolling_upgrade.features.notify.delivery import Deadline, Delivery, deliver
from rolling_upgrade.features.notify.text import Read, compose

#: Limit of a notice on all channels together, with retries and pauses.
WITHIN_SECONDS = 9.0
#: How long to wait for the errors of connections that the deadline cut, seconds.
CUT_SECONDS = 0.5

#: One attempt to send a message. Raises NotDelivered, or an error of a library.
Attempt = Callable[[Deadline], None]


class Sending:
    """A notice being sent; each channel has a daemon thread, so that the process can exit without waiting for it."""

    def __init__(self, deadline: Deadline, attempts: Mapping[str, Attempt], secrets: Sequence[str]) -> None:
        self._deadline, self._secrets = deadline, secrets
        self._names = list(attempts)
        self._deliveries: dict[str, Delivery] = {}
        self._threads = [thread for name, attempt in attempts.items() if (thread := self._start(name, attempt))]

    def _start(self, name: str, attempt: Attempt) -> Thread | None:
        thread = Thread(target=self._run, args=(name, attempt), daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._deliveries[name] = Delivery(name, "cannot start another thread on this machine")
            return None
        return thread

    def _run(self, name: str, attempt: Attempt) -> None:
        self._deliveries[name] = deliver(name, attempt, self._deadline, self._secrets)

    def wait(self) -> tuple[Delivery, ...]:
        """Wait for the results. Ctrl-C ends the wait; channels without a result then report the interrupt."""
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

    def attempt(name: str, channel: Hook | Mail, deadline: Deadline) -> None:
        # Each attempt renders the message itself, so that a faulty template is an error of the channel.
        message = compose(notice, channels.language, read, hidden)
        if isinstance(channel, Mail):
            mail.send(channel, mail.build_email(notice, message, channel, read), deadline)
        elif name == "slack":
            slack.send(channel, notice, message, deadline)
        else:
            webhook.send(channel, notice, message, deadline, hidden)

    # A test goes to every channel that is not off.
    accepting = channels.accepting(Severity.CRITICAL if notice.occasion is Occasion.TEST else notice.severity)
    attempts = {name: partial(attempt, name, channel) for name, channel in channels.configured if name in accepting}
    return Sending(Deadline(seconds, time.monotonic, sleep), attempts, hidden)
