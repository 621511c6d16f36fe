"""Lines of logs for people and programs, each behind the host that it comes from. It reads none."""

from __future__ import annotations

import json as json_format
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TextIO

from fabfile.model import Color
from fabfile.model.logs import LogLine
from fabfile.report.output import Output
from fabfile.report.reporter import has_colors
from fabfile.report.text import one_line, pad, width

#: One after the other for the hosts: cyan, yellow, magenta, green, blue, and the bright ones.
_COLORS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)


class LogWriter:
    """Writes lines as `HOST SOURCE LABEL | TIME TEXT`, those that match `grep`, and notes about them on `aside`."""

    def __init__(
        self,
        out: TextIO,
        aside: TextIO,
        *,
        hosts: Sequence[str],
        sources: Sequence[str] = (),
        secrets: Sequence[str] = (),
        grep: re.Pattern[str] | None = None,
        json: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._output, self._aside = Output(out, secrets), Output(aside, secrets)
        self._grep, self._json = grep, json
        colored = has_colors(out, environ if environ is not None else os.environ)
        self._colors = {host: _COLORS[at % len(_COLORS)] for at, host in enumerate(hosts)} if colored else {}
        widest = [max(map(width, words), default=0) for words in (hosts, sources, [color.value for color in Color])]
        self._width = sum(widest) + 2

    @property
    def gone(self) -> bool:
        """Whether nobody reads any more."""
        return self._output.gone

    def line(self, line: LogLine) -> None:
        """Write one line; a note goes aside, whatever `grep` says."""
        text = self._output.safe(line.text.replace("\r", "")).replace("\n", " ")
        if line.note:
            self._aside.write(f"{self._prefix(line)} -- {self._aside.safe(one_line(line.text))}\n")
            self._aside.flush()
            return
        if self._grep is not None and not self._grep.search(text):
            return
        if self._json:
            self._output.write(_object(line, text))
        else:
            self._output.write(f"{self._prefix(line)} {_time(line.at)}{text}\n")
        self._output.flush()

    def _prefix(self, line: LogLine) -> str:
        """The head of a line, padded to the longest; colored per host after it was made harmless."""
        words = (word for word in (line.host, line.source, line.label) if word)
        head = self._output.safe(one_line(" ".join(words)))
        head = f"{pad(head, self._width)} |"
        code = self._colors.get(line.host)
        return f"\x1b[{code}m{head}\x1b[0m" if code else head


def _time(at: float) -> str:
    if not at:
        return ""
    moment = datetime.fromtimestamp(at, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z "


def _object(line: LogLine, text: str) -> str:
    fields = {
        "host": line.host,
        "source": line.source,
        "label": line.label,
        "time": _time(line.at).strip(),
        "text": text,
    }
    return json_format.dumps(fields, ensure_ascii=False) + "\n"
