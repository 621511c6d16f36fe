"""What a doctor found, in words and as JSON. It looks at nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence

from fabfile.model import Diagnosis, Level
from fabfile.model.masking import safe
from fabfile.report.text import count, one_line

_SHOWN = {Level.OK: "ok", Level.WARNING: "warning", Level.REFUSED: "REFUSED"}


def diagnosis_lines(environment: str, rows: Sequence[Diagnosis]) -> list[str]:
    """Host by host, each finding with its remedy below it; the verdict last."""
    lines: list[str] = []
    for host in dict.fromkeys(row.host for row in rows):
        lines.append(host)
        for row in (row for row in rows if row.host == host):
            lines.append(f"  {_SHOWN[row.level]:<8} {one_line(row.what)}")
            lines += [f"           {one_line(row.remedy)}"] if row.remedy else []
    warnings = sum(row.level is Level.WARNING for row in rows)
    refused = sum(row.level is Level.REFUSED for row in rows)
    verdict = f"a deploy would be refused, {count(refused, 'reason')}" if refused else "a deploy would not be refused"
    return [*lines, "", f"{environment}: {verdict}; {count(warnings, 'warning')}"]


def diagnosis_json(environment: str, rows: Sequence[Diagnosis], secrets: Sequence[str]) -> str:
    """The same as one JSON object."""
    found = {
        "environment": environment,
        "refused": any(row.level is Level.REFUSED for row in rows),
        "findings": [
            {
                "host": row.host,
                "level": row.level.value,
                "what": safe(row.what, secrets),
                "remedy": safe(row.remedy, secrets),
            }
            for row in rows
        ],
    }
    return json.dumps(found, indent=2)
