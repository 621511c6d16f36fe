"""The Grafana dashboard of one application in one environment, as the JSON that Grafana loads. It sends nothing.

What the panels ask for stands in dashboard_panels.py, their words in dashboard_words.py; here Grafana's own SDK makes
a dashboard of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fabfile.model import Application
from fabfile.render.dashboard_panels import marks, rows
from fabfile.render.dashboard_shapes import Mark, Panel, Query, Row, Series, Shape
from fabfile.render.dashboard_words import Words

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders import common, prometheus, stat, statetimeline, table, timeseries
    from grafana_foundation_sdk.builders import dashboard as sdk
    from grafana_foundation_sdk.models.dashboard import DataSourceRef, ValueMap

    AnyPanel = stat.Panel | statetimeline.Panel | table.Panel | timeseries.Panel

#: What Grafana puts in the place of its variables, for whoever asks Prometheus itself.
_VALUES = {"$host": ".+", "$__rate_interval": "5m", "$__range": "5m"}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def dashboard(app: Application, environment: str) -> str:
    """The JSON text of the dashboard, in the language of the application's messages; always the same bytes.

    Source: Grafana, the Prometheus data source's annotations: `useValueForTime` takes a value as milliseconds, and
    `{{label}}` in the two formats is a label's value. The SDK knows none of the three.
    """
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    words = Words(app.channels.language)
    document = json.loads(JSONEncoder().encode(_built(app, environment, words).build()))
    for written, mark in zip(document["annotations"]["list"], marks(app, environment), strict=True):
        _, title, text = words.annotation(mark.key)
        written |= {"titleFormat": title, "textFormat": text, "useValueForTime": mark.timed}
    return json.dumps(document, ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def expressions(app: Application, environment: str) -> tuple[str, ...]:
    """Every PromQL expression of the dashboard, panels first, as Prometheus itself reads it: for every host, and over
    five minutes where Grafana would choose."""
    document = json.loads(dashboard(app, environment))
    asked = [target["expr"] for panel in document["panels"] for target in panel.get("targets", ())]
    asked += [mark["expr"] for mark in document["annotations"]["list"]]
    return tuple(dict.fromkeys(_without_variables(one) for one in asked))


def optional_expressions(app: Application, environment: str) -> tuple[str, ...]:
    """Those of them that a host may have nothing to answer to and be well: no backup, no TLS, a lock that is free."""
    panels = (panel for row in rows(app, environment, Words(app.channels.language)) for panel in row.panels)
    queries = [query for panel in panels for query in panel.queries]
    queries += [mark.query for mark in marks(app, environment)]
    return tuple(dict.fromkeys(_without_variables(query.expression) for query in queries if query.optional))


def _without_variables(expression: str) -> str:
    for name, value in _VALUES.items():
        expression = expression.replace(name, value)
    return expression


def _uid(app: Application, environment: str) -> str:
    """Source: Grafana takes at most 40 characters."""
    return "rolling-" + hashlib.sha256(f"{app.name}\0{environment}".encode()).hexdigest()[:24]


def _built(app: Application, environment: str, words: Words) -> sdk.Dashboard:
    from grafana_foundation_sdk.builders.dashboard import Dashboard
    from grafana_foundation_sdk.models.common import TimeZoneBrowser
    from grafana_foundation_sdk.models.dashboard import DashboardCursorSync

    built = (
        Dashboard(words.text("title").format(app=app.name, environment=environment))
        .uid(_uid(app, environment))
        .tags(["rolling", app.name, environment])
        .editable()
        .refresh("30s")
        .time("now-6h", "now")
        .timezone(TimeZoneBrowser)
        .tooltip(DashboardCursorSync.CROSSHAIR)
    )
    _give_variables(built, Series(app.name, environment), words)
    for mark in marks(app, environment):
        built.annotation(_annotation(mark, words))
    _give_panels(built, rows(app, environment, words), words)
    return built


def _give_variables(built: sdk.Dashboard, series: Series, words: Words) -> None:
    from grafana_foundation_sdk.builders.dashboard import DatasourceVariable, QueryVariable
    from grafana_foundation_sdk.models.dashboard import VariableOption, VariableRefresh, VariableSort

    hosts = (
        QueryVariable("host")
        .label(words.text("host"))
        .datasource(_source())
        .query(f"label_values({series.up()}, host)")
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
    )
    built.with_variable(DatasourceVariable("datasource").label(words.text("datasource")).type("prometheus"))
    built.with_variable(hosts)


def _give_panels(built: sdk.Dashboard, wanted: Iterator[Row], words: Words) -> None:
    """Put the panels into their rows; the SDK finds their places by their widths and heights."""
    from grafana_foundation_sdk.builders.dashboard import Row as SdkRow

    number = 0
    for row in wanted:
        number += 1
        built.with_row(SdkRow(words.row(row.key)).id(number))
        for panel in row.panels:
            number += 1
            built.with_panel(_panel(panel, words).id(number))


def _source() -> DataSourceRef:
    from grafana_foundation_sdk.models.dashboard import DataSourceRef

    return DataSourceRef(type_val="prometheus", uid="${datasource}")


def _annotation(mark: Mark, words: Words) -> sdk.AnnotationQuery:
    from grafana_foundation_sdk.builders.dashboard import AnnotationQuery

    name, _, _ = words.annotation(mark.key)
    made = AnnotationQuery().name(name).datasource(_source()).enable(True).icon_color(mark.color)
    return made.expr(mark.query.expression)


def _panel(panel: Panel, words: Words) -> AnyPanel:
    from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
    from grafana_foundation_sdk.models.dashboard import Threshold, ThresholdsMode

    made = _shaped(panel, words)
    title, description = words.panel(panel.key)
    steps = [Threshold(value=value, color=color) for value, color in panel.steps]
    made.title(title).description(description)
    made.datasource(_source()).span(panel.width).height(panel.height).unit(panel.unit).no_value(words.text("none"))
    made.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    if panel.states:
        made.mappings([_states(panel, words)])
    if panel.decimals is not None:
        made.decimals(panel.decimals)
    for letter, query in zip(_LETTERS, panel.queries, strict=False):
        made.with_target(_target(panel, query, letter))
    return made


def _shaped(panel: Panel, words: Words) -> AnyPanel:
    match panel.shape:
        case Shape.STAT:
            return _stat()
        case Shape.GRAPH:
            return _graph(panel)
        case Shape.TIMELINE:
            return _timeline()
        case Shape.TABLE:
            return _table(panel, words)


def _stat() -> stat.Panel:
    """The figure of each series, on the color of its threshold."""
    from grafana_foundation_sdk.builders.common import ReduceDataOptions
    from grafana_foundation_sdk.builders.stat import Panel as Stat
    from grafana_foundation_sdk.models.common import BigValueColorMode, BigValueGraphMode, BigValueTextMode

    made = Stat().color_mode(BigValueColorMode.BACKGROUND).graph_mode(BigValueGraphMode.NONE)
    made.text_mode(BigValueTextMode.VALUE_AND_NAME)
    return made.reduce_options(ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))


def _graph(panel: Panel) -> timeseries.Panel:
    """Lines from zero, with a dashed one at each threshold."""
    from grafana_foundation_sdk.builders.common import GraphThresholdsStyleConfig, VizTooltipOptions
    from grafana_foundation_sdk.builders.timeseries import Panel as Graph
    from grafana_foundation_sdk.models.common import GraphThresholdsStyleMode, TooltipDisplayMode, VisibilityMode

    made = Graph().min(0).line_width(1).fill_opacity(8).show_points(VisibilityMode.NEVER)
    made.legend(_legend().calcs(["lastNotNull", "max"])).tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    if len(panel.steps) > 1:
        made.thresholds_style(GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    return made


def _timeline() -> statetimeline.Panel:
    """A bar for each series, in the color of its state."""
    from grafana_foundation_sdk.builders.statetimeline import Panel as Timeline
    from grafana_foundation_sdk.models.common import VisibilityMode

    made = Timeline().show_value(VisibilityMode.NEVER).row_height(0.8).merge_values(True).legend(_legend())
    return made.line_width(0).fill_opacity(70)


def _table(panel: Panel, words: Words) -> table.Panel:
    """The labels of each series as its line."""
    from grafana_foundation_sdk.builders.table import Panel as Table
    from grafana_foundation_sdk.models.common import FieldTextAlignment
    from grafana_foundation_sdk.models.dashboard import DataTransformerConfig

    names = {label: words.text(label) for label in panel.columns}
    hidden = {"Time": True}
    if panel.value:
        names["Value"] = words.text(panel.value)
    else:
        hidden["Value"] = True
    places = {name: place for place, name in enumerate(names)}
    options = {"excludeByName": hidden, "indexByName": places, "renameByName": names}
    made = Table().show_header(True).align(FieldTextAlignment.AUTO)
    return made.with_transformation(DataTransformerConfig(id_val="organize", options=options))


def _legend() -> common.VizLegendOptions:
    from grafana_foundation_sdk.builders.common import VizLegendOptions
    from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement

    legend = VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    return legend.show_legend(True)


def _states(panel: Panel, words: Words) -> ValueMap:
    """The words and colors of 0, 1 and so on."""
    from grafana_foundation_sdk.models.dashboard import ValueMap, ValueMappingResult

    found = enumerate(panel.states)
    return ValueMap({str(at): ValueMappingResult(words.text(key), color, index=at) for at, (key, color) in found})


def _target(panel: Panel, query: Query, letter: str) -> prometheus.Dataquery:
    from grafana_foundation_sdk.builders.prometheus import Dataquery
    from grafana_foundation_sdk.models.prometheus import PromQueryFormat

    made = Dataquery().expr(query.expression).ref_id(letter).datasource(_source())
    if panel.shape is Shape.TABLE:
        return made.instant().format(PromQueryFormat.TABLE)
    made.legend_format(query.legend)
    return made.instant() if panel.shape is Shape.STAT else made.range()
