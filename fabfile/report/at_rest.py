"""What lies encrypted, for whom, and what lies open, in words. It reads no file."""

from __future__ import annotations

from collections.abc import Sequence

from fabfile.model import Diagnosis, Level
from fabfile.report.text import count, one_line, table


def recipient_lines(file: str, rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Whose keys a recipients file lists: name, kind, fingerprint."""
    if not rows:
        return [f"{file}: nobody"]
    return [f"{file}: {count(len(rows), 'key')}", *table([("", *row) for row in rows])]


def finding_lines(rows: Sequence[Diagnosis], environments: str) -> list[str]:
    """File by file, each finding with its remedy below it; the verdict last."""
    lines: list[str] = []
    for file in dict.fromkeys(row.host for row in rows):
        lines.append(file)
        for row in (row for row in rows if row.host == file):
            lines.append(f"  {'repaired' if row.level is Level.OK else 'FOUND':<8} {one_line(row.what)}")
            lines += [f"           {one_line(row.remedy)}"] if row.remedy else []
    found = sum(row.level is not Level.OK for row in rows)
    return [*lines, f"{environments}: {count(found, 'finding') if found else 'no secret lies open'}"]
