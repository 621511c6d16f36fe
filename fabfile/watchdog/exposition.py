"""The text that Prometheus reads: families of samples, their labels escaped. Pure.

Source: Prometheus' text exposition format 0.0.4: one HELP and one TYPE for a family, all of its samples behind
them, each series once; in a label's value backslash, quote and line feed are escaped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fabfile.model.masking import safe

#: A label's value is cut beyond this; a text that people wrote may be as long as they like.
LONGEST_LABEL = 200
_NAME = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True)
class Sample:
    """One value with its labels; `suffix` is that of a histogram's parts."""

    value: float
    labels: tuple[tuple[str, str], ...] = ()
    suffix: str = ""


@dataclass(frozen=True)
class Family:
    """The samples of one name. `kind` is gauge, counter or histogram."""

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]


def gauge(name: str, help: str, *samples: Sample) -> Family:
    """A value that goes up and down."""
    return Family(name, "gauge", help, samples)


def counter(name: str, help: str, *samples: Sample) -> Family:
    """A value that only rises."""
    return Family(name, "counter", help, samples)


def sample(value: float, suffix: str = "", **labels: str) -> Sample:
    """A value with its labels."""
    return Sample(float(value), tuple(labels.items()), suffix)


def exposition(families: Iterable[Family], common: Mapping[str, str], secrets: Sequence[str] = ()) -> str:
    """The whole text; each sample carries the common labels too. A family without a sample is left out, and so is a
    series that is there already. Secrets are masked in whatever a label says."""
    lines: list[str] = []
    for family in families:
        if not _NAME.fullmatch(family.name):
            raise ValueError(f"{family.name!r} is no name of a metric")
        rows: dict[str, str] = {}
        for one in family.samples:
            labels = {**common, **dict(one.labels)}
            inner = ",".join(f'{name}="{_escaped(value, secrets)}"' for name, value in labels.items())
            series = f"{family.name}{one.suffix}{{{inner}}}"
            rows.setdefault(series, f"{series} {_number(one.value)}")
        if rows:
            lines += [
                f"# HELP {family.name} {_help(family.help)}",
                f"# TYPE {family.name} {family.kind}",
                *rows.values(),
            ]
    return "".join(f"{line}\n" for line in lines)


def _escaped(value: str, secrets: Sequence[str]) -> str:
    shown = " ".join(safe(value, secrets).split())[:LONGEST_LABEL]
    return shown.replace("\\", "\\\\").replace('"', '\\"')


def _help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else repr(value)
