"""The report for pipes, CI and dumb terminals: timestamped lines, no colors, no cursor."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from threading import Lock
from types import TracebackType

from fabfile.model import Event, Phase, Summary
from fabfile.plans.step import Plan
from fabfile.report.output import Output
from fabfile.report.plan import plan_lines
from fabfile.report.summary import event_lines, summary_lines
from fabfile.report.text import width

#: How often the progress of a host's transfer is a line of its own.
PROGRESS_SECONDS = 5.0


class PlainReporter:
    """Writes a line per event as it happens; safe to call from many threads."""

    def __init__(self, output: Output, *, zone: tzinfo | None = None) -> None:
        self._output = output
        self._zone = zone
        self._host_columns = 0
        self._lock = Lock()
        self._told: dict[str, float] = {}

    def plan(self, plans: Sequence[Plan], *, scripts: bool = False, batches: Sequence[Sequence[str]] = ()) -> None:
        """Show the plans, with every command when `scripts`."""
        self._host_columns = max((width(plan.host) for plan in plans), default=0)
        self._output.show(plan_lines(plans, scripts=scripts, batches=batches))

    def event(self, event: Event) -> None:
        """Show one event; of a transfer's progress, a line every few seconds is enough."""
        if event.phase is Phase.PROGRESS:
            with self._lock:
                if event.at - self._told.get(event.host, event.at - event.seconds) < PROGRESS_SECONDS:
                    return
                self._told[event.host] = event.at
        self._output.show(event_lines(event, host_columns=self._host_columns, zone=self._zone))

    def summary(self, summary: Summary) -> None:
        """Show how the run ended."""
        self._output.show(summary_lines(summary))

    def close(self) -> None:
        """Nothing to end: every line was handed over when it was written."""

    def __enter__(self) -> PlainReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
