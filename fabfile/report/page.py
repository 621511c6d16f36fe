"""The report of one run as the values of a page: places and sizes of what is drawn. It renders nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fabfile.report.text import clock_time, duration, short_digest

#: The drawings' own units; the page stretches them.
WIDTH, HEIGHT = 720, 140
#: No bar is thinner, percent of the width: a short step must be seen.
_THINNEST = 0.4
_WORDS = {"good": "good", "undone": "undone", "undo-failed": "undo failed"}


def page(told: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows: the report of `report.passage.told_of` with every text and number as it is printed."""
    return {
        **told,
        "when": _when(told["time"]),
        "took": duration(told["seconds"]),
        "outcome_words": _WORDS[told["outcome"]],
        "hosts": _hosts(told["hosts"]),
        "runs": _runs(told["runs"], told["run"]),
        "chart": _chart(told["runs"], told["run"]),
        "load": _load(told["requests"], told["hosts"]),
        "width": WIDTH,
        "height": HEIGHT,
    }


def _when(time: str) -> str:
    return time.replace("T", " ").replace("+00:00", " UTC")


def _hosts(hosts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    stages = [stage for host in hosts for stage in host["stages"]]
    start = min((stage["began"] for stage in stages), default=0.0)
    end = max((stage["began"] + (stage["seconds"] or 0.0) for stage in stages), default=start)
    span = max(end - start, 0.001)
    return [
        {
            **host,
            "took": duration(host["seconds"]),
            "outcome_words": _WORDS[host["outcome"]],
            "changes": [_change(change) for change in host["changes"]],
            "stages": [_stage(stage, start, span) for stage in host["stages"]],
            "excerpts": [stage for stage in host["stages"] if stage["status"] != 0 and stage["log"]],
        }
        for host in hosts
    ]


def _change(change: Mapping[str, Any]) -> dict[str, Any]:
    before = change["before"]
    if before is None:
        what = "new here"
    elif change["image_changed"]:
        what = "another image"
    else:
        what = "another configuration" if change["configuration_changed"] else "unchanged"
    return {**change, "what": what, "was": _image(before) if before else "", "is": _image(change["after"])}


def _image(run: Mapping[str, Any]) -> str:
    return f"{run['image'].rpartition('/')[2]} ({short_digest(run['digest'])})"


def _stage(stage: Mapping[str, Any], start: float, span: float) -> dict[str, Any]:
    seconds = stage["seconds"]
    left = min((stage["began"] - start) / span * 100, 100 - _THINNEST)
    share = max((seconds or 0.0) / span * 100, _THINNEST)
    status = stage["status"]
    return {
        **stage,
        "at": f"+{stage['began'] - start:.1f} s",
        "took": "no end" if seconds is None else duration(seconds),
        "result": "done" if status == 0 else "no end" if status is None else f"status {status}",
        "good": status == 0,
        "left": round(left, 2),
        "share": round(min(share, 100 - left), 2),
    }


def _runs(runs: Sequence[Mapping[str, Any]], run: str) -> list[dict[str, Any]]:
    """The newest first, as a person reads a list."""
    return [
        {
            **one,
            "when": _when(one["time"]),
            "took": duration(one["seconds"]),
            "outcome_words": _WORDS[one["outcome"]],
            "this": one["id"] == run,
        }
        for one in reversed(runs)
    ]


def _chart(runs: Sequence[Mapping[str, Any]], run: str) -> dict[str, Any]:
    """A bar for each run, as high as it took."""
    longest = max((one["seconds"] for one in runs), default=0.0) or 1.0
    room = WIDTH / max(len(runs), 8)
    bars = [
        {
            "x": round(number * room + room * 0.15, 1),
            "width": round(room * 0.7, 1),
            "height": (height := round(max(one["seconds"] / longest * (HEIGHT - 10), 3.0), 1)),
            "y": round(HEIGHT - height, 1),
            "outcome": one["outcome"],
            "this": one["id"] == run,
            "title": f"{one['action']} {one['id']}: {_WORDS[one['outcome']]}, {duration(one['seconds'])}",
        }
        for number, one in enumerate(runs)
    ]
    return {"bars": bars, "longest": duration(longest)}


def _load(requests: Mapping[str, Any] | None, hosts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if requests is None:
        return None
    seconds = requests["seconds"]
    most = max((second["requests"] for second in seconds), default=0) or 1
    room = WIDTH / max(len(seconds), 1)
    first = seconds[0]["at"] if seconds else 0
    cutovers = [
        {"x": round((stage["began"] - first) * room, 1), "title": f"{host['host']} {stage['step']}"}
        for host in hosts
        for stage in host["stages"]
        if stage["step"].endswith(".cutover")
    ]
    return {
        "bars": [_second(number, second, room, most) for number, second in enumerate(seconds)],
        "cutovers": [one for one in cutovers if 0 <= one["x"] <= WIDTH],
        "most": most,
        "from": clock_time(first),
        "whole": requests["whole"],
        "near": requests["cutovers"],
    }


def _second(number: int, second: Mapping[str, Any], room: float, most: int) -> dict[str, Any]:
    high = second["requests"] / most * (HEIGHT - 10)
    bad = max(second["failed"] / most * (HEIGHT - 10), 3.0) if second["failed"] else 0.0
    return {
        "x": round(number * room, 1),
        "width": round(max(room * 0.85, 0.5), 1),
        "y": round(HEIGHT - high, 1),
        "height": round(high, 1),
        "bad": round(bad, 1),
        "bad_y": round(HEIGHT - bad, 1),
    }
