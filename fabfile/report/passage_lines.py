"""The report of one run in lines, for a terminal or a file. It reads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fabfile.report.text import count, duration, one_line, short_digest, table

_LOG_LINES = 5


def passage_lines(told: Mapping[str, Any]) -> list[str]:
    """What `report.passage.told_of` found, in lines."""
    return [*_head(told), *(line for host in told["hosts"] for line in _host(host)), *_tail(told)]


def _head(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"{told['action']} {told['run']} on {told['environment']}: {told['outcome']} ({duration(told['seconds'])})"
    who = f"by {told['owner'] or 'unknown'}"
    whose = f" of {told['key_of']}" if told["key_of"] else ""
    key = f" with key {told['key']}{whose}" if told["key"] else ""
    where = f" from {told['client']}" if told["client"] else ""
    clone = f", clone {told['revision']}" if told["revision"] else ""
    yield one_line(f"{told['time'].replace('T', ' ').replace('+00:00', ' UTC')} {who}{key}{where}{clone}")
    if told["reason"]:
        yield f"because {one_line(told['reason'])}"
    yield ""


def _host(host: Mapping[str, Any]) -> Iterator[str]:
    yield f"{host['host']}  {host['outcome']}, {duration(host['seconds'])}"
    yield from table([("", change["service"], *_change(change)) for change in host["changes"]])
    start = min((stage["began"] for stage in host["stages"]), default=0.0)
    yield from table([_stage(stage, start) for stage in host["stages"]])
    for stage in host["stages"]:
        if stage["status"] != 0:
            yield f"  last words of {stage['step']}"
            yield from (f"    | {line}" for line in stage["log"][-_LOG_LINES:])
    if not host["stages"]:
        yield "  the journal of this run is gone: a host keeps that of its last 20 runs"
    if not host["whole"]:
        yield "  NOT WHOLE: a line of this host's history was changed or removed: inv history --verify"
    yield ""


def _change(change: Mapping[str, Any]) -> tuple[str, ...]:
    after = _image(change["after"])
    if change["before"] is None:
        return "new", after
    if change["image_changed"]:
        return "image", f"{_image(change['before'])} → {after}"
    return ("configuration", after) if change["configuration_changed"] else ("unchanged", after)


def _image(run: Mapping[str, Any]) -> str:
    return f"{run['image'].rpartition('/')[2]} ({short_digest(run['digest'])})"


def _stage(stage: Mapping[str, Any], start: float) -> tuple[str, ...]:
    took = "no end" if stage["seconds"] is None else duration(stage["seconds"])
    status = "" if stage["status"] == 0 else f"status {'unknown' if stage['status'] is None else stage['status']}"
    return "", f"+{stage['began'] - start:.1f}s", stage["step"], took, status


def _tail(told: Mapping[str, Any]) -> Iterator[str]:
    if told["requests"]:
        rows = [("requests", "", *_figures(told["requests"]["whole"]))]
        rows += [(one["host"], one["step"], *_figures(one)) for one in told["requests"]["cutovers"]]
        yield from table(rows)
        yield ""
    yield from (f"{name}  not part of this run" for name in told["not_in_it"])
    yield from (f"{one['host']}  NOT REACHED: {one_line(one['why'])}" for one in told["lost"])
    good = sum(run["outcome"] == "good" for run in told["runs"])
    yield f"{count(len(told['runs']), 'run')} in the history shown here, {good} good"
    if told["undo"]:
        yield f"To go back:\n{told['undo']}"


def _figures(figures: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(figures["requests"]),
        f"{figures['failed']} failed",
        f"p50 {figures['p50_ms']:g} ms",
        f"p99 {figures['p99_ms']:g} ms",
    )
