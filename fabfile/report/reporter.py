"""What a run tells its reader, and which reader it has. It owns the choice between the three forms."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, TextIO

from fabfile.model import Event, Summary
from fabfile.plans.step import Plan
from fabfile.report.output import Output, is_terminal


class Reporter(Protocol):
    """Where a run tells what it does; every method may be called from any thread and never fails the run."""

    def plan(self, plans: Sequence[Plan], *, scripts: bool = False, batches: Sequence[Sequence[str]] = ()) -> None:
        """Show the plans before anything is asked; `scripts` adds every command, `batches` the order."""

    def event(self, event: Event) -> None:
        """Show one event."""

    def summary(self, summary: Summary) -> None:
        """Show how the run ended; the last thing said."""

    def close(self) -> None:
        """Give the terminal back; more than once does no harm."""

    def __enter__(self) -> Reporter: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def choose(
    *,
    json: bool = False,
    stream: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
    secrets: Sequence[str] = (),
) -> Reporter:
    """The reporter that fits the reader: JSON when asked, a live table on a terminal, or plain lines."""
    stream = stream if stream is not None else sys.stdout
    environ = environ if environ is not None else os.environ
    output = Output(stream, secrets)
    if json:
        from fabfile.report.json_lines import JsonReporter

        return JsonReporter(output)
    if is_live(stream, environ):
        # Rich costs 60 ms to import: only who watches pays for it.
        from fabfile.report.live import LiveReporter

        return LiveReporter(output, environ=environ)
    from fabfile.report.plain import PlainReporter

    return PlainReporter(output)


def is_live(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the stream is a terminal that can redraw and that a person watches."""
    in_ci = environ.get("CI", "").lower() not in ("", "0", "false")
    return is_terminal(stream) and not in_ci and environ.get("TERM") not in (None, "", "dumb")


def has_colors(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether text on the stream may be colored."""
    return is_live(stream, environ) and not environ.get("NO_COLOR")
