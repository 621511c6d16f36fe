"""The Grafana dashboard: its panels, their positions, and their queries."""

from __future__ import annotations

import inspect
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from rolling_upgrade.engine.model import Application, Channels, WatchRules
from rolling_upgrade.features.observe.files import dashboard
from rolling_upgrade.features.watchdog import metrics
from rolling_upgrade.rendering import TEMPLATES
from tests.support.monitoring import expressions
from tests.support.sample import application

APP = application(request_metrics=True)
CHINESE = replace(APP, channels=Channels(language="zh-TW"))
QUIET = replace(APP, request_metrics=False)
EVERY = pytest.mark.parametrize("app", [APP, CHINESE, QUIET], ids=["english", "chinese", "without request metrics"])
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

#: The series of node-exporter and blackbox-exporter that the dashboard uses.
EXPORTED = {
    "node_cpu_seconds_total",
    "node_filesystem_avail_bytes",
    "node_filesystem_size_bytes",
    "node_load5",
    "node_memory_MemAvailable_bytes",
    "node_memory_MemTotal_bytes",
    "node_network_receive_bytes_total",
    "node_network_transmit_bytes_total",
    "probe_duration_seconds",
    "probe_http_duration_seconds",
    "probe_ssl_earliest_cert_expiry",
    "probe_success",
    "up",
}


def document(app: Application = APP, environment: str = "production") -> dict[str, Any]:
    found = json.loads(dashboard(app, environment))
    assert isinstance(found, dict)
    return found


def panels(app: Application = APP) -> list[dict[str, Any]]:
    return [panel for panel in document(app)["panels"] if panel["type"] != "row"]


def panel(title: str, app: Application = APP) -> dict[str, Any]:
    (found,) = [candidate for candidate in panels(app) if candidate["title"] == title]
    return found


def cells(position: dict[str, int]) -> Iterator[tuple[int, int]]:
    x, y = position["x"], position["y"]
    yield from itertools.product(range(x, x + position["w"]), range(y, y + position["h"]))


def test_dashboard_rendered_twice_is_equal() -> None:
    assert dashboard(APP, "production") == dashboard(APP, "production")


def test_dashboard_uid_depends_on_application_and_environment() -> None:
    known = document()["uid"]
    others = {document(APP, "staging")["uid"], document(replace(APP, name="store"))["uid"]}

    assert re.fullmatch(r"[a-z0-9-]{1,40}", known)
    assert len(others | {known}) == 3
    assert document(replace(CHINESE, domain="other.test"))["uid"] == known


def test_dashboard_shows_the_last_hours_and_refreshes() -> None:
    found = document()

    assert found["time"] == {"from": "now-6h", "to": "now"}
    assert (found["refresh"], found["timezone"], found["editable"]) == ("30s", "browser", True)
    assert found["tags"] == ["rolling", "shop", "production"]
    assert not found.get("links")


def test_dashboard_variables_are_the_data_source_and_the_hosts() -> None:
    source, host = document()["templating"]["list"]

    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert (host["name"], host["multi"], host["includeAll"], host["allValue"]) == ("host", True, True, ".+")
    assert host["query"] == 'label_values(up{job="shop",environment="production"}, host)'
    assert host["datasource"] == SOURCE


@EVERY
def test_dashboard_every_panel_has_title_description_unit_and_thresholds(app: Application) -> None:
    for panel in panels(app):
        assert panel["title"], panel
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], panel["title"]


@EVERY
def test_dashboard_every_query_uses_the_chosen_data_source(app: Application) -> None:
    targets = [target for panel in panels(app) for target in panel["targets"]]
    queries = [*panels(app), *document(app)["annotations"]["list"], *targets]

    assert targets
    assert [query["datasource"] for query in queries] == [SOURCE] * len(queries)


@EVERY
def test_dashboard_panels_fill_their_lines_without_overlap(app: Application) -> None:
    positions = [panel["gridPos"] for panel in document(app)["panels"]]
    covered = [cell for position in positions for cell in cells(position)]

    assert len(covered) == len(set(covered))
    assert {x for x, _ in covered} == set(range(24))
    for position in positions:
        assert sum(other["w"] for other in positions if other["y"] == position["y"]) == 24


@EVERY
def test_dashboard_numbers_and_letters_are_unique(app: Application) -> None:
    numbers = [panel["id"] for panel in document(app)["panels"]]

    assert len(numbers) == len(set(numbers))
    for panel in panels(app):
        letters = [target["refId"] for target in panel["targets"]]
        assert len(letters) == len(set(letters)), panel["title"]


@EVERY
def test_dashboard_every_query_of_a_graph_has_a_legend(app: Application) -> None:
    for panel in panels(app):
        if panel["type"] != "table":
            assert all("{{" in target["legendFormat"] for target in panel["targets"]), panel["title"]


@EVERY
def test_expressions_select_only_exported_series(app: Application) -> None:
    families = set(re.findall(r'"(rolling_[a-z_]+)"', inspect.getsource(metrics)))
    parts = {name + part for name in families for part in ("", "_bucket", "_sum", "_count")}
    used = {name for expression in expressions(app, "production") for name in re.findall(r"(\w+)\{", expression)}

    assert "rolling_check_ok" in families
    assert used <= parts | EXPORTED


def test_expressions_cover_the_series_of_the_watchdog() -> None:
    families = set(re.findall(r'"(rolling_[a-z_]+)"', inspect.getsource(metrics)))
    text = "\n".join(expressions(APP, "production"))

    assert {name for name in families if name not in text} == {
        "rolling_metrics_errors_total",
        "rolling_nginx_accepted_total",
        "rolling_nginx_requests_total",
        "rolling_nginx_up",
        "rolling_service_failures",
        "rolling_watchdog_interval_seconds",
    }


def test_expressions_select_one_application_and_environment() -> None:
    for expression in expressions(APP, "staging"):
        for name, inner in re.findall(r"(\w+)\{([^}]*)\}", expression):
            job = "shop-site" if name.startswith("probe_") else "shop"
            assert {f'job="{job}"', 'environment="staging"', 'host=~".+"'} <= set(inner.split(",")), expression
            assert ('app="shop"' in inner) is name.startswith("rolling_"), expression


@EVERY
def test_expressions_have_no_variable_of_grafana(app: Application) -> None:
    assert not [expression for expression in expressions(app, "production") if "$" in expression]


def test_expressions_cover_panels_and_annotations() -> None:
    found = document()
    written = {target["expr"] for panel in panels() for target in panel["targets"]}
    written |= {annotation["expr"] for annotation in found["annotations"]["list"]}

    assert len(expressions(APP, "production")) == len(set(expressions(APP, "production"))) == len(written)


def test_expressions_without_request_metrics_select_none() -> None:
    text = "\n".join(expressions(QUIET, "production"))

    assert "rolling_http_" not in text
    assert "rolling_nginx_" not in text
    assert "rolling_check_seconds" in panel("Response time", QUIET)["targets"][0]["expr"]


def test_dashboard_title_names_application_and_environment() -> None:
    assert document()["title"] == "shop · production"
    assert panel("Service health")["type"] == "stat"
    assert panel("Response time")["type"] == "timeseries"


def test_dashboard_in_chinese_has_chinese_titles() -> None:
    found = document(replace(CHINESE, name="memoryark"))

    assert found["title"] == "memoryark production 監控"
    assert panel("服務健康狀態", CHINESE)["type"] == "stat"
    assert panel("服務回應時間", CHINESE)["type"] == "timeseries"
    assert "服務回應時間" in {panel["title"] for panel in panels(replace(CHINESE, request_metrics=False))}


def test_dashboard_in_both_languages_has_the_same_queries() -> None:
    assert expressions(CHINESE, "production") == expressions(APP, "production")
    assert not {panel["title"] for panel in panels()} & {panel["title"] for panel in panels(CHINESE)}


def test_translation_has_every_text_of_the_template_and_no_other() -> None:
    directory = TEMPLATES / "observe"
    template = (directory / "dashboard.json.j2").read_text(encoding="utf-8")
    translation = json.loads((directory / "dashboard.zh-TW.json").read_text(encoding="utf-8"))
    texts = set(re.findall(r'_\("([^"]+)"\)', template))
    texts |= set(itertools.chain.from_iterable(re.findall(r'states\("(\w+)", "\w+", "(\w+)"', template)))

    assert texts == set(translation)
    for english, chinese in translation.items():
        assert english.isascii() or "·" in english, english
        assert re.search("[\u4e00-\u9fff\uff1a]", chinese), chinese


def test_annotations_show_action_host_and_result() -> None:
    done, failed, recovery = document()["annotations"]["list"]

    assert (done["textFormat"], done["useValueForTime"]) == ("{{action}} on {{host}}: done", True)
    assert failed["textFormat"].startswith("{{action}} on {{host}}: failed")
    assert done["expr"].startswith("1000 * ")
    assert (done["expr"][-4:], failed["expr"][-4:]) == ("== 1", "== 0")
    assert (recovery["textFormat"], recovery["useValueForTime"]) == ("{{act}} on {{host}}", False)


def test_thresholds_match_inv_health_and_the_watchdog() -> None:
    slow = replace(APP, watch=WatchRules(interval_seconds=60), thresholds=replace(APP.thresholds, free_percent=25))

    assert steps("Last observation", slow) == [(None, "green"), (180, "yellow"), (600, "red")]
    assert steps("Disk free", slow) == [(None, "red"), (0.25, "green")]
    assert steps("Memory", slow) == [(None, "green"), (0.9, "red")]
    assert steps("Newest backup", slow) == [(None, "green"), (26 * 3600, "red")]
    assert steps("Certificate", slow) == [(None, "red"), (14, "green")]


def steps(title: str, app: Application) -> list[tuple[float | None, str]]:
    found = panel(title, app)["fieldConfig"]["defaults"]["thresholds"]["steps"]
    return [(step["value"], step["color"]) for step in found]
