"""How well hosts are, for people and programs: what is wrong comes first. It looks at no host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fabfile.errors import HostUnreachable
from fabfile.model import Check, HealthReport
from fabfile.report.text import count, one_line, table

Found = Mapping[str, HealthReport | HostUnreachable]


def health_lines(found: Found, environment: str, *, verbose: bool = False) -> list[str]:
    """A line a host, a line for each check that is not well, every check with `verbose`, and the verdict."""
    lines: list[str] = []
    for name, report in found.items():
        if isinstance(report, HostUnreachable):
            lines.append(f"{name}  NOT REACHED: {one_line(str(report))}")
            continue
        many = len(report.checks)
        state = f"{len(report.failed)} of {many} checks FAILED" if report.failed else f"well, {count(many, 'check')}"
        page = f", maintenance page up ({report.state.fact('maintenance')})" if report.state.fact("maintenance") else ""
        held = f", locked by {report.state.lock.owner}: {report.state.lock.reason}" if report.state.lock else ""
        lines.append(f"{name}  {state}{page}{held}")
        shown = [*report.failed, *(one for one in report.checks if one.ok)] if verbose else report.failed
        lines += [f"  {row}" for row in table([_row(check) for check in shown])]
    return [*lines, "", _verdict(found, environment)]


def _row(check: Check) -> tuple[str, ...]:
    took = f"{check.milliseconds} ms" if check.milliseconds else ""
    return ("ok" if check.ok else "FAILED", check.name, one_line(check.detail), took)


def _verdict(found: Found, environment: str) -> str:
    ill = {name: report for name, report in found.items() if isinstance(report, HostUnreachable) or report.failed}
    if not ill:
        return f"{environment}: {count(len(found), 'host')}, healthy"
    named = "; ".join(f"{name}: {_names(report)}" for name, report in ill.items())
    return f"{environment}: {count(len(found), 'host')}, NOT WELL: {named}"


def _names(report: HealthReport | HostUnreachable) -> str:
    if isinstance(report, HostUnreachable):
        return "not reached"
    return ", ".join(check.name for check in report.failed)


def health_objects(found: Found) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {"host": name, "ok": False, "error": str(report)}
        if isinstance(report, HostUnreachable)
        else {"host": name, "ok": not report.failed, "checks": [_object(check) for check in report.checks]}
        for name, report in found.items()
    ]


def _object(check: Check) -> dict[str, Any]:
    return asdict(check) | {"kind": check.kind.value}
