"""What a host is to the rest of the project: something that runs a script and answers. It opens no connection."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from fabfile.commands.shell import Script


@dataclass(frozen=True)
class Answer:
    """What a script printed and the status it exited with."""

    status: int
    output: str
    errors: str = ""

    @property
    def ok(self) -> bool:
        """Whether the script exited with 0."""
        return self.status == 0

    @property
    def last_words(self) -> str:
        """The end of what it said, for a person: at most thirty lines."""
        both = "\n".join(part for part in (self.output.strip(), self.errors.strip()) if part)
        return "\n".join(both.splitlines()[-30:])


class Host(Protocol):
    """One machine. `run` is the only way anything happens on it."""

    @property
    def name(self) -> str:
        """The inventory's name for it."""

    def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:
        """Run the script under `sh` and wait for its end, or until `cancelled` is set.

        Raises HostUnreachable when it could not be begun, ConnectionDropped when its outcome is unknown, Cancelled
        when it was given up: it may still run on the host.
        """

    def close(self) -> None:
        """Let go of the connection; a later `run` opens a new one."""


class StreamingHost(Host, Protocol):
    """A machine whose script is heard while it runs."""

    def stream(
        self,
        script: Script,
        on_output: Callable[[bytes], None],
        on_errors: Callable[[bytes], None],
        *,
        timeout_seconds: float = math.inf,
        cancelled: Event | None = None,
    ) -> int:
        """Run the script under `sh`, hand over what it says piece by piece, and answer its exit status.

        Its descriptor 3 stays open until the workstation lets go, whatever the reason: a script that could outlive
        its reader waits for the end of that file and then ends what it began. Raises as `run` does; what a callback
        raises ends the stream.
        """


class Cancelled(Exception):
    """The run was interrupted while a script was on its way: its outcome is unknown."""
