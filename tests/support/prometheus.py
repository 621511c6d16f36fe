"""A strict parser of Prometheus' text format, and promtool where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field

_SERIES = re.compile(r'([a-z_][a-z0-9_]*)\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\} (\S+)')
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"')
_PARTS = {"histogram": ("_bucket", "_sum", "_count"), "gauge": ("",), "counter": ("",)}


@dataclass
class Metrics:
    """The samples by name and labels, and the type of each family."""

    kinds: dict[str, str] = field(default_factory=dict)
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = field(default_factory=dict)

    def value(self, name: str, **labels: str) -> float:
        """Return the only sample with this name and these labels. Raises AssertionError for none or several."""
        values = [value for (own, have), value in self.samples.items() if own == name and labels.items() <= have]
        assert len(values) == 1, (name, labels, values)
        return values[0]

    def names(self) -> set[str]:
        """Return the names of all samples."""
        return {name for name, _ in self.samples}

    def labels(self, name: str, **labels: str) -> list[dict[str, str]]:
        """Return all labels of every sample with this name and these labels."""
        return [dict(have) for own, have in self.samples if own == name and labels.items() <= have]


def read(text: str) -> Metrics:
    """Parse a text. Raises AssertionError for a line that Prometheus rejects, or a sample without a type."""
    metrics, family = Metrics(), ""
    assert text == "" or text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in metrics.kinds, line
            metrics.kinds[name], family = kind, name
            continue
        match = _SERIES.fullmatch(line)
        assert match, line
        assert match[1] in {family + part for part in _PARTS[metrics.kinds[family]]}, f"{line} is not of {family}"
        labels = {name: re.sub(r"\\(.)", _unescaped, value) for name, value in _LABEL.findall(match[2])}
        key = (match[1], frozenset(labels.items()))
        assert key not in metrics.samples, line
        metrics.samples[key] = float(match[3])
    return metrics


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]


def promtool(text: str) -> str:
    """Return the faults that `promtool check metrics` reports, or '' where it is not installed."""
    program = shutil.which("promtool")
    if program is None:
        return ""
    done = subprocess.run(
        [program, "check", "metrics"], input=text, capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout + done.stderr if done.returncode else ""
