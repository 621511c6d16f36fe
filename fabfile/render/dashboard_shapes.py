"""Of what the Grafana dashboard is made: series, queries, panels, rows, annotations. Shapes that know no Grafana."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"

#: Thresholds from below, the first without a value, with their colors.
Steps = tuple[tuple[float | None, str], ...]
PLAIN: Steps = ((None, GREEN),)


class Shape(Enum):
    """How a panel shows what it asks for."""

    STAT = "stat"
    GRAPH = "timeseries"
    TIMELINE = "state-timeline"
    TABLE = "table"


@dataclass(frozen=True)
class Query:
    """One expression. Where it is `optional` a host that is well may have nothing to answer."""

    expression: str
    legend: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Panel:
    """One panel, by the key of its words.

    `states` are the keys and colors of 0 and 1. Of a table, `columns` are the labels in their order and `value` the key
    of what the value's column is called, '' to leave that out.
    """

    key: str
    shape: Shape
    unit: str
    width: int
    queries: tuple[Query, ...]
    height: int = 8
    steps: Steps = PLAIN
    states: tuple[tuple[str, str], ...] = ()
    columns: tuple[str, ...] = ()
    value: str = ""
    decimals: int | None = None


@dataclass(frozen=True)
class Row:
    """A row of panels, by the key of its title; the widths make lines of 24."""

    key: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Mark:
    """An annotation, by the key of its words. The value of `query` is the time in milliseconds where `timed`."""

    key: str
    color: str
    query: Query
    timed: bool = False


@dataclass(frozen=True)
class Series:
    """How the series of one application in one environment are picked out, on the hosts that the variable names."""

    app: str
    environment: str

    def up(self) -> str:
        """The targets themselves, on every host."""
        return f"up{{{self._own(self.app)}}}"

    def rolling(self, name: str, *more: str) -> str:
        """A series of the watchdog, without the prefix of its name."""
        return self._picked(f"rolling_{name}", f"app={quoted(self.app)}", self._own(self.app), *more)

    def node(self, name: str, *more: str) -> str:
        """A series of node-exporter."""
        return self._picked(f"node_{name}", self._own(self.app), *more)

    def site(self, name: str) -> str:
        """A series of blackbox-exporter, which asks for the public site."""
        return self._picked(f"probe_{name}", self._own(f"{self.app}-site"))

    def _own(self, job: str) -> str:
        return f"job={quoted(job)},environment={quoted(self.environment)}"

    def _picked(self, name: str, *matchers: str) -> str:
        inner = ",".join([*matchers, 'host=~"$host"'])
        return f"{name}{{{inner}}}"


def quoted(value: str) -> str:
    """A text as PromQL reads it. Source: Prometheus, string literals: backslash, quote and line feed are escaped."""
    inner = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{inner}"'


def stat(
    key: str,
    unit: str,
    width: int,
    *queries: Query,
    height: int = 5,
    steps: Steps = PLAIN,
    states: tuple[tuple[str, str], ...] = (),
    decimals: int | None = None,
) -> Panel:
    """A panel of one figure a series."""
    return Panel(key, Shape.STAT, unit, width, queries, height, steps, states, decimals=decimals)


def graph(
    key: str,
    unit: str,
    width: int,
    *queries: Query,
    steps: Steps = PLAIN,
    decimals: int | None = None,
) -> Panel:
    """A panel of lines over time."""
    return Panel(key, Shape.GRAPH, unit, width, queries, steps=steps, decimals=decimals)
