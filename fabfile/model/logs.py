"""What a container, Nginx or a unit said: one line of a log. Shapes only.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LogLine:
    """One line of one source on one host. `label` is the color or the file, `at` Unix seconds, 0 where the line names
    no time. A `note` is a word of ours about the source, not the source's."""

    host: str
    source: str
    label: str
    text: str
    at: float = 0.0
    note: bool = False
