"""The report of one run in lines."""

from __future__ import annotations

from collections.abc import Iterator

from rolling_upgrade.console.text import count, duration, one_line, table, unreachable_lines, utc_time
from rolling_upgrade.engine.model import Outcome, short_digest
from rolling_upgrade.errors import PROGRAM
from rolling_upgrade.features.report.load import Figures
from rolling_upgrade.features.report.run_report import HostReport, RunReport, ServiceChange, ServiceVersion, StageReport

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
    start = min((stage.began for stage in host.stages), default=0.0)
    yield from table([_stage_row(stage, start) for stage in host.stages])
    for stage in host.stages:
        if stage.status != 0:
            yield f"  last output of {stage.step}"
            yield from (f"    | {line}" for line in stage.log[-_LOG_LINES:])
    if not host.stages:
        yield "  the journal of this run was deleted: a host keeps the journals of its last 20 runs"
    if not host.intact:
        yield f"  ALTERED: a line of this host's history was changed or removed. Next: {PROGRAM} history --verify"
    yield ""


def _change_cells(change: ServiceChange) -> tuple[str, ...]:
    after = image_text(change.after)
    if change.before is None:
        return "new", after
    if change.image_changed:
        return "image", f"{image_text(change.before)} → {after}"
    return ("configuration", after) if change.configuration_changed else ("unchanged", after)


def image_text(version: ServiceVersion) -> str:
    """Return the name, tag and digest of an image: `backend:v2 (ab12ab12ab12)`."""
    return f"{version.image.rpartition('/')[2]} ({short_digest(version.digest)})"


def _stage_row(stage: StageReport, start: float) -> tuple[str, ...]:
    took = "no end" if stage.seconds is None else duration(stage.seconds)
    status = "" if stage.status == 0 else f"status {'unknown' if stage.status is None else stage.status}"
    return "", f"+{stage.began - start:.1f}s", stage.step, took, status


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
