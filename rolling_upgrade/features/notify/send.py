"""One notice to every channel that takes it, all at once, within a bound. It never raises and never prints."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Thread

from fabfile.model.channels import Channels, Hook, Mail
from fabfile.model.notice import Notice, Occasion, Severity
from fabfile.notify import mail, slack, webhook
from fabfile.notify.delivery import Deadline, Delivery, deliver
from fabfile.notify.http import post
from fabfile.notify.text import Read, compose

#: How long a notice may take on all channels together, tries and pauses included.
WITHIN_SECONDS = 9.0
#: How long a cut connection is waited for, to hear how it ended.
CUT_SECONDS = 0.5


class Sending:
    """A notice on its way; each channel has a thread that no exit of the process waits for."""

    def __init__(self, deadline: Deadline, work: Sequence[tuple[str, Callable[[], Delivery]]]) -> None:
        self._deadline = deadline
        self._found: dict[str, Delivery] = {}
        self._names = [name for name, _ in work]
        self._threads = [thread for name, do in work if (thread := self._started(name, do))]

    def _started(self, name: str, do: Callable[[], Delivery]) -> Thread | None:
        thread = Thread(target=self._one, args=(name, do), daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._found[name] = Delivery(name, "this machine has no room for another thread")
            return None
        return thread

    def _one(self, name: str, do: Callable[[], Delivery]) -> None:
        self._found[name] = do()

    def wait(self) -> tuple[Delivery, ...]:
        """How it fared on each channel; Ctrl-C ends the waiting and is told as an error of what was still under way."""
        why = f"no end within {self._deadline.seconds:g} s; it may still arrive"
        try:
            self._join(self._deadline.remaining)
        except KeyboardInterrupt:
            why = "interrupted before it answered"
        self._deadline.cut()
        try:
            self._join(CUT_SECONDS)
        except KeyboardInterrupt:
            why = "interrupted before it answered"
        return tuple(self._found.get(name) or Delivery(name, why) for name in self._names)

    def _join(self, seconds: float) -> None:
        end = self._deadline.clock() + seconds
        for thread in self._threads:
            thread.join(max(end - self._deadline.clock(), 0))


def begin(
    notice: Notice,
    channels: Channels,
    *,
    read: Read,
    secrets: Sequence[str] = (),
    seconds: float = WITHIN_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Sending:
    """Begin to send the notice to every channel that takes its severity, and come back at once.

    `secrets` are masked in whatever is sent; those of the channels are in any case.
    """
    hidden = (*secrets, *channels.secrets)
    deadline = Deadline(seconds, clock, sleep)
    # A test tells whoever is told anything at all.
    taking = channels.taking(Severity.CRITICAL if notice.occasion is Occasion.TEST else notice.severity)
    chosen = [(name, channel) for name, channel in channels.configured if name in taking]

    def work(name: str, channel: Hook | Mail) -> Callable[[], Delivery]:
        attempt = _attempt(name, channel, notice, channels.language, read, hidden)
        return lambda: deliver(name, attempt, deadline, hidden)

    return Sending(deadline, [(name, work(name, channel)) for name, channel in chosen])


def send(
    notice: Notice,
    channels: Channels,
    *,
    read: Read,
    secrets: Sequence[str] = (),
    seconds: float = WITHIN_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Delivery, ...]:
    """Send the notice to every channel that takes its severity, and say how it fared on each."""
    return begin(notice, channels, read=read, secrets=secrets, seconds=seconds, clock=clock, sleep=sleep).wait()


def _attempt(
    name: str, channel: Hook | Mail, notice: Notice, language: str, read: Read, secrets: Sequence[str]
) -> Callable[[Deadline], None]:
    """One try; the words are made in it, so that a faulty template is that channel's error and nobody else's."""

    def attempt(deadline: Deadline) -> None:
        told = compose(notice, language, read, secrets)
        if isinstance(channel, Mail):
            mail.post(channel, mail.message(notice, told, channel, read), deadline)
        elif name == "slack":
            post(channel.url, slack.payload(notice, told), deadline)
        else:
            post(channel.url, webhook.payload(notice, told, secrets), deadline)

    return attempt
