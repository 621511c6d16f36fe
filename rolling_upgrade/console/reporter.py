"""Reporters of a run: JSON lines for programs, plain lines for pipes and CI, a live table on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from threading import Lock
from types import TracebackType
from typing import Any, Protocol, TextIO

from rolling_upgrade.console.output import Output, is_live
from rolling_upgrade.console.plan import plan_lines
from rolling_upgrade.console.text import clock_time, duration, indent, one_line, pad, progress, table, width
from rolling_upgrade.engine.model import Event, HostSummary, Phase, Summary
from rolling_upgrade.engine.plan import Plan, ServicePlan, Step
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.errors import ExitCode

#: The interval between two plain lines about the progress of a step.
PROGRESS_SECONDS = 5.0


class Reporter(Protocol):
    """Shows a run. Any thread may call any method, and no method fails the run."""

    def plan(self, plans: Sequence[Plan], *, scripts: bool = False, batches: Sequence[Sequence[str]] = ()) -> None:
        """Show the plans before the confirmation; `scripts` adds every command, `batches` the order of the hosts."""

    def event(self, event: Event) -> None:
        """Show one event."""

    def summary(self, summary: Summary) -> None:
        """Show the result of the run. This is the last call."""

    def close(self) -> None:
        """Restore the terminal. Calling it again is safe."""
        return

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def make_reporter(
    *,
    json: bool = False,
    stream: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
    secrets: Sequence[str] = (),
) -> Reporter:
    """Return the reporter for a stream: JSON on request, a live table on a terminal, plain lines otherwise."""
    stream = stream if stream is not None else sys.stdout
    environ = environ if environ is not None else os.environ
    output = Output(stream, secrets)
    if json:
        return JsonReporter(output)
    if is_live(stream, environ):
        # Importing Rich takes 60 ms, so only a live table imports it.
        from rolling_upgrade.console.live import LiveReporter

        return LiveReporter(output, environ=environ)
    return PlainReporter(output)


class PlainReporter(Reporter):
    """Writes timestamped lines without colors or cursor movement."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._host_columns = 0
        self._lock = Lock()
        self._progress_at: dict[tuple[str, str], float] = {}

    def plan(self, plans: Sequence[Plan], *, scripts: bool = False, batches: Sequence[Sequence[str]] = ()) -> None:
        """Write the plans, with every command when `scripts`."""
        self._host_columns = max((self._host_columns, *(width(plan.host) for plan in plans)))
        self._output.show(plan_lines(plans, scripts=scripts, batches=batches))

    def event(self, event: Event) -> None:
        """Write one event; of the progress of a step only a line every few seconds."""
        key = event.host, event.step
        with self._lock:
            if event.phase is Phase.STARTED:
                self._progress_at[key] = event.at
            if event.phase is Phase.PROGRESS:
                if event.at - self._progress_at.setdefault(key, event.at - event.seconds) < PROGRESS_SECONDS:
                    return
                self._progress_at[key] = event.at
        self._output.show(event_lines(event, host_columns=self._host_columns))

    def summary(self, summary: Summary) -> None:
        """Write the result of the run."""
        self._output.show(summary_lines(summary))


class JsonReporter(Reporter):
    """Writes one JSON object per line, whose `type` is `plan`, `event` or `summary`; the summary is the last."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def plan(self, plans: Sequence[Plan], *, scripts: bool = False, batches: Sequence[Sequence[str]] = ()) -> None:
        """Write one object per host, with every command when `scripts`, and the number of the host's batch."""
        numbers = {host: number for number, hosts in enumerate(batches, 1) for host in hosts}
        for plan in plans:
            self._output.write_json({**plan_json(plan, scripts=scripts), "batch": numbers.get(plan.host)})

    def event(self, event: Event) -> None:
        """Write one event."""
        self._output.write_json(event_json(event))

    def summary(self, summary: Summary) -> None:
        """Write the result of the run."""
        self._output.write_json(summary_json(summary))


def plan_json(plan: Plan, *, scripts: bool) -> dict[str, Any]:
    """Return the JSON object of one host's plan."""
    sections = {
        "lock": plan.acquire,
        "prepare": plan.prepare,
        "release_command": plan.release,
        "steps": plan.steps,
        "finish": plan.finalize,
        "abort": plan.abort,
    }
    return {
        "type": "plan",
        "host": plan.host,
        "action": plan.action,
        "release": plan.run_id,
        "empty": plan.empty,
        "services": [_service_json(service) for service in plan.services],
        "notes": plan.notes,
        **{name: [_step_json(step, scripts=scripts) for step in steps] for name, steps in sections.items()},
    }


def event_json(event: Event) -> dict[str, Any]:
    """Return the JSON object of one event; `sent` and `total` appear only for a transfer."""
    shown: dict[str, Any] = to_plain(event) | {
        "type": "event",
        "at": round(event.at, 3),
        "seconds": round(event.seconds, 3),
    }
    if not (event.sent or event.total):
        del shown["sent"], shown["total"]
    return shown


def summary_json(summary: Summary) -> dict[str, Any]:
    """Return the JSON object of the result of a run."""
    hosts = [_host_json(host) for host in summary.hosts]
    seconds = round(summary.seconds, 3)
    fields: dict[str, Any] = to_plain(summary)
    return fields | {"type": "summary", "exit_code": int(summary.exit_code), "seconds": seconds, "hosts": hosts}


def _host_json(host: HostSummary) -> dict[str, Any]:
    fields: dict[str, Any] = to_plain(host)
    return fields | {"seconds": round(host.seconds, 3), "images": dict(host.images)}


def _service_json(service: ServicePlan) -> dict[str, Any]:
    shown: dict[str, Any] = to_plain(service)
    for image in (shown["current"], shown["wanted"]):
        if image:
            del image["revision"]
    return shown


def _step_json(step: Step, *, scripts: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": step.id, "title": step.title, "group": step.group}
    if scripts:
        undo = step.undo.masked if step.undo else None
        shown |= {"timeout_seconds": step.timeout_seconds, "script": step.script.masked, "undo": undo}
    return shown


_TIMED = frozenset({Phase.DONE, Phase.FAILED, Phase.UNDONE})

_RESULTS = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed; the completed steps were undone",
    ExitCode.USAGE: "not started: the command line or the configuration has errors",
    ExitCode.REFUSED: "refused, nothing was touched",
    ExitCode.LOCKED: "stopped: another run holds the lock",
    ExitCode.UNDO_FAILED: "failed, and so did the undo: manual intervention is required",
    ExitCode.PARTLY_DONE: "partly done: run the same command again to continue",
    ExitCode.INTERRUPTED: "interrupted; the completed steps were undone",
}


def event_lines(event: Event, *, host_columns: int = 0) -> list[str]:
    """Return one line for an event, and its log lines indented below; the detail of progress is on the line itself.

    Each line of a step's output is a line of its own.
    """
    host = pad(one_line(event.host) or "-", host_columns)
    if event.phase is Phase.OUTPUT:
        start = f"{clock_time(event.at)} {host}  {event.step}  | "
        return indent(event.detail, start)
    phase = event.phase.value if event.phase is not Phase.NOTE else ""
    took = duration(event.seconds) if event.phase in _TIMED and event.seconds > 0 else ""
    title = "" if event.phase is Phase.DONE and event.step else one_line(event.title)
    if event.phase is Phase.PROGRESS:
        phase, title = "", progress_text(event)
    text = "  ".join(part for part in (event.step, f"{phase} {took}".strip(), title) if part)
    log = "" if event.phase is Phase.PROGRESS else event.detail
    return [f"{clock_time(event.at)} {host}  {text}".rstrip(), *indent(log, "    | ")]


def progress_text(event: Event) -> str:
    """Return the progress of a step in one line: its text, or the bytes of its transfer."""
    return one_line(event.detail) or progress(event.sent, event.total, event.seconds)


def summary_lines(summary: Summary) -> list[str]:
    """Return a table of the hosts, the result, the warnings, and last the command that undoes the run."""
    lines = [""]
    if summary.hosts:
        lines += table([("HOST", "RESULT", "SECONDS", "IMAGES"), *(_host_row(host) for host in summary.hosts)])
        for host in summary.hosts:
            if host.cause:
                first, *more = host.cause.strip().splitlines() or [""]
                named = first if first.startswith(host.host) else f"{host.host}: {first}"
                lines += [named, *(f"  {line}" for line in more)]
        lines.append("")
    lines.append(result_line(summary))
    lines += indent(summary.message, "")
    lines += [f"warning: {one_line(warning)}" for warning in summary.warnings]
    if summary.undo_command:
        lines += ["To go back:", one_line(summary.undo_command)]
    return lines


def result_line(summary: Summary) -> str:
    """Summarise a run in one line: action, environment, result and duration."""
    try:
        result = _RESULTS[ExitCode(summary.exit_code)]
    except ValueError:
        result = f"ended with exit code {summary.exit_code}"
    run = f"{summary.action} {summary.release}".strip()
    return f"{run} on {summary.environment}: {result} ({duration(summary.seconds)})"


def _host_row(host: HostSummary) -> tuple[str, str, str, str]:
    images = ", ".join(f"{service} {image}" for service, image in host.images)
    return one_line(host.host), host.result.value, f"{host.seconds:.1f}", one_line(images) or "-"
