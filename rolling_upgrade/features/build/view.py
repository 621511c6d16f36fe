"""Builds, test suites and pipeline stages in lines and as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence

from rolling_upgrade.console.text import duration, indent, one_line, table
from rolling_upgrade.engine.model import Built, Ran, StageResult, Suite


def build_plan_lines(commands: Mapping[str, Sequence[str]], references: Mapping[str, str], *, push: bool) -> list[str]:
    """Return the plan of a build, with every command."""
    lines = []
    for service, argv in commands.items():
        lines += [f"{service}: build {references[service]}", f"  {shlex.join(argv)}"]
    return [*lines, *(f"{service}: push {reference}" for service, reference in references.items() if push)]


def build_lines(built: Sequence[Built]) -> list[str]:
    """Return a table of the built images, each with its size and the change from the image before."""
    rows = [("SERVICE", "IMAGE", "SECONDS", "SIZE", "CHANGE", "DIGEST")]
    for image in built:
        size = f"{image.bytes / 1e6:.1f} MB" if image.bytes else "-"
        digest = image.digest or "not pushed"
        rows.append((image.service, image.reference, f"{image.seconds:.1f}", size, _change(image), digest))
    return ["", *table(rows)]


def _change(built: Built) -> str:
    if not built.before or not built.bytes:
        return "-"
    change = built.bytes - built.before
    return f"{change / 1e6:+.1f} MB, {change * 100 / built.before:+.0f}%"


def build_json(built: Built) -> dict[str, object]:
    """Return the JSON object of one image."""
    return {
        "service": built.service,
        "image": built.reference,
        "id": built.id,
        "digest": built.digest,
        "bytes": built.bytes,
        "bytes_before": built.before,
        "seconds": round(built.seconds, 1),
    }


def suite_plan_lines(suites: Iterable[Suite], *, production: bool) -> list[str]:
    """Return the plan of the suites: each with its command, or why it would be skipped."""
    return [
        f"{suite.title}: would be skipped: production is not put under load"
        if suite.skipped(production=production)
        else f"{suite.title}: {shlex.join(suite.command)} in {suite.folder}"
        for suite in suites
    ]


def suite_lines(ran: Sequence[Ran]) -> list[str]:
    """Return a table of the suites, then the details of each."""
    rows = [("SUITE", "KIND", "RESULT", "SECONDS")]
    rows += [(run.suite.title, run.suite.kind.value, run.result, f"{run.seconds:.1f}") for run in ran]
    lines = ["", *table(rows)]
    for run in ran:
        if run.detail:
            first, *more = run.detail.splitlines()
            lines += [f"{run.suite.title}: {first}", *indent("\n".join(more), "  ")]
    return lines


def stage_lines(stages: Sequence[StageResult], pipeline: str, seconds: float) -> list[str]:
    """Return a table of the stages, and the result of the pipeline, which is last."""
    rows = [("STAGE", "RESULT", "SECONDS", "DETAIL")]
    for stage in stages:
        took = f"{stage.seconds:.1f}" if stage.began else "-"
        rows.append((stage.name, stage.result, took, one_line(stage.detail) or "-"))
    stopped = next((stage.name for stage in stages if stage.exit_code), "")
    result = f"stopped at {stopped}" if stopped else "done"
    return ["", *table(rows), "", f"{pipeline}: {result} ({duration(seconds)})"]
