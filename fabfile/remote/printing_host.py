"""A Host that runs nothing: it keeps the scripts it was given, secrets masked, and answers success."""

from __future__ import annotations

from threading import Event

from fabfile.commands.shell import Script
from fabfile.remote.host import Answer


class PrintingHost:
    """Collects what would run, for dry runs and tests."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.scripts: list[str] = []

    @property
    def name(self) -> str:
        """The name it was given."""
        return self._name

    def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:  # noqa: ARG002 - the protocol's signature
        """Keep the masked text; nothing runs."""
        self.scripts.append(script.masked)
        return Answer(0, "")

    def close(self) -> None:
        """Nothing to let go of."""
