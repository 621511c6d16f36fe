"""Builds, suites and the stages of the whole pipeline in words and as objects. It writes nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence

from fabfile.model import Built, Ran, StageResult, Suite
from fabfile.report.text import duration, indent, one_line, table


def order_lines(commands: Mapping[str, Sequence[str]], references: Mapping[str, str], *, push: bool) -> list[str]:
    """What a build would do, with every command."""
    lines = []
    for service, argv in commands.items():
        lines += [f"{service}: build {references[service]}", f"  {shlex.join(argv)}"]
    return [*lines, *(f"{service}: push {reference}" for service, reference in references.items() if push)]


def built_lines(built: Sequence[Built]) -> list[str]:
    """The table of images, each with its size beside that of the one before."""
    rows = [("SERVICE", "IMAGE", "SECONDS", "SIZE", "CHANGE", "DIGEST")]
    for one in built:
        size = _megabytes(one.bytes) if one.bytes else "-"
        rows.append((one.service, one.reference, f"{one.seconds:.1f}", size, _change(one), one.digest or "not pushed"))
    return ["", *table(rows)]


def _change(built: Built) -> str:
    if not built.before or not built.bytes:
        return "-"
    change = built.bytes - built.before
    return f"{change / 1e6:+.1f} MB, {change * 100 / built.before:+.0f}%"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def built_object(built: Built) -> dict[str, object]:
    """One image for a program."""
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
    """What would be run, and where; and what would be skipped."""
    return [
        f"{suite.title}: would be skipped, production is not put under load"
        if suite.skipped(production=production)
        else f"{suite.title}: {shlex.join(suite.command)} in {suite.folder}"
        for suite in suites
    ]


def suite_lines(ran: Sequence[Ran]) -> list[str]:
    """The table of suites, then what failed in words."""
    rows = [("SUITE", "KIND", "RESULT", "SECONDS")]
    rows += [(one.suite.title, one.suite.kind.value, one.result, f"{one.seconds:.1f}") for one in ran]
    lines = ["", *table(rows)]
    for one in ran:
        if one.detail:
            first, *more = one.detail.splitlines()
            lines += [f"{one.suite.title}: {first}", *indent("\n".join(more), "  ")]
    return lines


def stage_lines(stages: Sequence[StageResult], what: str, seconds: float) -> list[str]:
    """The table of stages and, last, how it all ended."""
    rows = [("STAGE", "RESULT", "SECONDS", "DETAIL")]
    for one in stages:
        took = f"{one.seconds:.1f}" if one.began else "-"
        rows.append((one.name, one.result, took, one_line(one.detail) or "-"))
    stopped = next((one.name for one in stages if one.exit_code), "")
    how = f"stopped at {stopped}" if stopped else "done"
    return ["", *table(rows), "", f"{what}: {how} ({duration(seconds)})"]
