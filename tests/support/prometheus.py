"""A reader of Prometheus' text format that is as strict as Prometheus, and promtool where this machine has it."""

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
    """Every sample by its name and labels, and the kind of each family."""

    kinds: dict[str, str] = field(default_factory=dict)
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = field(default_factory=dict)

    def value(self, name: str, **labels: str) -> float:
        """The one sample of that name with these labels among its own. Raises AssertionError when it is not one."""
        found = [value for (own, have), value in self.samples.items() if own == name and labels.items() <= have]
        assert len(found) == 1, (name, labels, found)
        return found[0]

    def names(self) -> set[str]:
        """The names of all samples."""
        return {name for name, _ in self.samples}

    def labels(self, name: str, **labels: str) -> list[dict[str, str]]:
        """The labels of every sample of that name with these among its own."""
        return [dict(have) for own, have in self.samples if own == name and labels.items() <= have]


def read(text: str) -> Metrics:
    """Read a whole text. Raises AssertionError for a line that Prometheus would refuse, or one without a kind."""
    found, ended, now = Metrics(), set[str](), ""
    assert text == "" or text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in found.kinds, line
            found.kinds[name], now = kind, name
            continue
        match = _SERIES.fullmatch(line)
        assert match, line
        family = next((now + part for part in _PARTS[found.kinds[now]] if match[1] == now + part), "")
        assert family, f"{line} is not of {now}"
        labels = {name: re.sub(r"\\(.)", _unescaped, value) for name, value in _LABEL.findall(match[2])}
        key = (match[1], frozenset(labels.items()))
        assert key not in found.samples, line
        found.samples[key] = float(match[3])
        ended.add(now)
    return found


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]


def promtool(text: str) -> str:
    """What `promtool check metrics` finds wrong, '' where it is not installed."""
    program = shutil.which("promtool")
    if program is None:
        return ""
    done = subprocess.run(
        [program, "check", "metrics"], input=text, capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout + done.stderr if done.returncode else ""
