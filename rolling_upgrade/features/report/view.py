"""The report of one run in lines, and the values of its HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rolling_upgrade.console.text import clock_time, count, duration, one_line, table, unreachable_lines, utc_time
from rolling_upgrade.engine.model import Outcome, short_digest
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.errors import PROGRAM
from rolling_upgrade.features.report.run_report import (
    Figures,
    HostReport,
    LoadReport,
    PastRun,
    RunReport,
    SecondFigures,
    ServiceChange,
    ServiceVersion,
    StepReport,
)

_LOG_LINES = 5


def report_lines(report: RunReport) -> list[str]:
    """Return the lines of the report; the last one is the undo command."""
    return [*_head(report), *(line for host in report.hosts for line in _host_lines(host)), *_tail(report)]


def _head(report: RunReport) -> Iterator[str]:
    duration_text = duration(report.seconds)
    yield f"{report.action} {report.run} on {report.environment}: {report.outcome.value} ({duration_text})"
    owner = f" of {report.key_of}" if report.key_of else ""
    key = f" with key {report.key}{owner}" if report.key else ""
    client = f" from {report.client}" if report.client else ""
    clone = f", clone {report.revision}" if report.revision else ""
    yield one_line(f"{utc_time(report.time)} by {report.owner or 'unknown'}{key}{client}{clone}")
    if report.reason:
        yield f"because {one_line(report.reason)}"
    yield ""


def _host_lines(host: HostReport) -> Iterator[str]:
    yield f"{host.host}  {host.outcome.value}, {duration(host.seconds)}"
    yield from table([("", change.service, *_change_cells(change)) for change in host.changes])
    start = min((step.began for step in host.steps), default=0.0)
    yield from table([_step_row(step, start) for step in host.steps])
    for step in host.steps:
        if step.status != 0:
            yield f"  last output of {step.id}"
            yield from (f"    | {line}" for line in step.log[-_LOG_LINES:])
    if not host.steps:
        yield "  the journal of this run was deleted: a host keeps the journals of its last 20 runs"
    if not host.intact:
        yield f"  ALTERED: a line of this host's history was changed or removed. Next: {PROGRAM} history --verify"
    yield ""


def _change_cells(change: ServiceChange) -> tuple[str, ...]:
    kind, after = _kind(change), image_text(change.after)
    return kind, f"{image_text(change.before)} → {after}" if change.before and kind == "image" else after


def _kind(change: ServiceChange) -> str:
    if change.before is None:
        return "new"
    if change.image_changed:
        return "image"
    return "configuration" if change.configuration_changed else "unchanged"


def image_text(version: ServiceVersion) -> str:
    """Return the name, tag and digest of an image: `backend:v2 (ab12ab12ab12)`."""
    return f"{version.image.rpartition('/')[2]} ({short_digest(version.digest)})"


def _step_row(step: StepReport, start: float) -> tuple[str, ...]:
    took = "no end" if step.seconds is None else duration(step.seconds)
    status = "" if step.status == 0 else f"status {'unknown' if step.status is None else step.status}"
    return "", f"+{step.began - start:.1f}s", step.id, took, status


def _tail(report: RunReport) -> Iterator[str]:
    if report.requests:
        rows = [("requests", "", *_figure_cells(report.requests.total))]
        rows += [(cutover.host, cutover.step, *_figure_cells(cutover)) for cutover in report.requests.cutovers]
        yield from table(rows)
        yield ""
    yield from (f"{name}  not part of this run" for name in report.hosts_without_run)
    yield from unreachable_lines({host.host: host.why for host in report.unreachable})
    good = sum(run.outcome is Outcome.GOOD for run in report.runs)
    yield f"{count(len(report.runs), 'run')} in the history shown here, {good} good"
    if report.undo:
        yield f"To go back:\n{report.undo}"


def _figure_cells(figures: Figures) -> tuple[str, ...]:
    return (
        str(figures.requests),
        f"{figures.failed} failed",
        f"p50 {figures.p50_ms:g} ms",
        f"p99 {figures.p99_ms:g} ms",
    )


#: The size of a drawing in its own units; the page scales it.
WIDTH, HEIGHT = 720, 140
#: The least width of a bar in percent, so that a short step is visible.
_THINNEST = 0.4
_HTML_KINDS = {"new": "new here", "image": "new image", "configuration": "new configuration", "unchanged": "unchanged"}
_OUTCOMES = {Outcome.GOOD: "good", Outcome.UNDONE: "undone", Outcome.UNDO_FAILED: "undo failed"}


def html_values(report: RunReport) -> dict[str, Any]:
    """Return the values for the template of the page: texts, and positions and sizes of its drawings."""
    return {
        **to_plain(report),
        "when": utc_time(report.time),
        "took": duration(report.seconds),
        "outcome_text": _OUTCOMES[report.outcome],
        "hosts": _hosts(report.hosts),
        "runs": _runs(report.runs, report.run),
        "chart": _chart(report.runs, report.run),
        "load": _load(report.requests, report.hosts) if report.requests else None,
        "width": WIDTH,
        "height": HEIGHT,
    }


def _hosts(hosts: Sequence[HostReport]) -> list[dict[str, Any]]:
    steps = [step for host in hosts for step in host.steps]
    start = min((step.began for step in steps), default=0.0)
    end = max((step.began + (step.seconds or 0.0) for step in steps), default=start)
    span = max(end - start, 0.001)
    return [
        {
            **to_plain(host),
            "took": duration(host.seconds),
            "outcome_text": _OUTCOMES[host.outcome],
            "changes": [_change(change) for change in host.changes],
            "steps": [_step(step, start, span) for step in host.steps],
            "excerpts": [{"id": step.id, "log": step.log} for step in host.steps if step.status != 0 and step.log],
        }
        for host in hosts
    ]


def _change(change: ServiceChange) -> dict[str, Any]:
    return {
        "service": change.service,
        "kind": _HTML_KINDS[_kind(change)],
        "before": image_text(change.before) if change.before else "",
        "after": image_text(change.after),
    }


def _step(step: StepReport, start: float, span: float) -> dict[str, Any]:
    left = min((step.began - start) / span * 100, 100 - _THINNEST)
    share = max((step.seconds or 0.0) / span * 100, _THINNEST)
    return {
        "id": step.id,
        "at": f"+{step.began - start:.1f} s",
        "took": "no end" if step.seconds is None else duration(step.seconds),
        "result": "done" if step.status == 0 else "no end" if step.status is None else f"status {step.status}",
        "good": step.status == 0,
        "left": round(left, 2),
        "share": round(min(share, 100 - left), 2),
    }


def _runs(runs: Sequence[PastRun], current: str) -> list[dict[str, Any]]:
    """Return the rows of the list of runs, newest first."""
    return [
        {
            **to_plain(run),
            "when": utc_time(run.time),
            "took": duration(run.seconds),
            "outcome_text": _OUTCOMES[run.outcome],
            "current": run.id == current,
        }
        for run in reversed(runs)
    ]


def _chart(runs: Sequence[PastRun], current: str) -> dict[str, Any]:
    """Return a bar for each run, whose height is the run's duration."""
    longest = max((run.seconds for run in runs), default=0.0) or 1.0
    room = WIDTH / max(len(runs), 8)
    bars = [
        {
            "x": round(number * room + room * 0.15, 1),
            "width": round(room * 0.7, 1),
            "height": (height := round(max(run.seconds / longest * (HEIGHT - 10), 3.0), 1)),
            "y": round(HEIGHT - height, 1),
            "outcome": run.outcome.value,
            "current": run.id == current,
            "title": f"{run.action} {run.id}: {_OUTCOMES[run.outcome]}, {duration(run.seconds)}",
        }
        for number, run in enumerate(runs)
    ]
    return {"bars": bars, "longest": duration(longest)}


def _load(load: LoadReport, hosts: Sequence[HostReport]) -> dict[str, Any]:
    most = max((second.requests for second in load.seconds), default=0) or 1
    room = WIDTH / max(len(load.seconds), 1)
    first = load.seconds[0].at if load.seconds else 0
    cutovers = [
        {"x": round((step.began - first) * room, 1), "title": f"{host.host} {step.id}"}
        for host in hosts
        for step in host.steps
        if step.id.endswith(".cutover")
    ]
    return {
        "bars": [_second(number, second, room, most) for number, second in enumerate(load.seconds)],
        "cutovers": [cutover for cutover in cutovers if 0 <= cutover["x"] <= WIDTH],  # type: ignore[operator]
        "most": most,
        "from": clock_time(first),
        "whole": load.total,
        "near": load.cutovers,
    }


def _second(number: int, second: SecondFigures, room: float, most: int) -> dict[str, Any]:
    height = second.requests / most * (HEIGHT - 10)
    failed = max(second.failed / most * (HEIGHT - 10), 3.0) if second.failed else 0.0
    return {
        "x": round(number * room, 1),
        "width": round(max(room * 0.85, 0.5), 1),
        "y": round(HEIGHT - height, 1),
        "height": round(height, 1),
        "failed": round(failed, 1),
        "failed_y": round(HEIGHT - failed, 1),
    }
