"""Format events and the summary of a run."""

from __future__ import annotations

from datetime import tzinfo

from rolling_upgrade.console.text import clock_time, duration, indent, one_line, pad, progress, table
from rolling_upgrade.engine.model import Event, HostSummary, Phase, Summary
from rolling_upgrade.errors import ExitCode

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


def event_lines(event: Event, *, host_columns: int = 0, zone: tzinfo | None = None) -> list[str]:
    """Return one line for an event, and its log lines indented below."""
    host = pad(one_line(event.host) or "-", host_columns)
    phase = event.phase.value if event.phase is not Phase.NOTE else ""
    took = duration(event.seconds) if event.phase in _TIMED and event.seconds > 0 else ""
    title = "" if event.phase is Phase.DONE and event.step else one_line(event.title)
    if event.phase is Phase.PROGRESS:
        phase, title = "", progress(event.sent, event.total, event.seconds)
    text = "  ".join(part for part in (event.step, f"{phase} {took}".strip(), title) if part)
    return [f"{clock_time(event.at, zone)} {host}  {text}".rstrip(), *indent(event.detail, "    | ")]


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
