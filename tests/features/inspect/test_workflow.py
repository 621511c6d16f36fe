"""The JSON of an inspection."""

from __future__ import annotations

from rolling_upgrade.engine import observation
from rolling_upgrade.features.inspect.workflow import Inspection, inspect_json
from tests.engine.test_observation import APP, row, text
from tests.support.builders import environment


def test_inspect_json_ports_use_the_same_words_for_expected_and_found() -> None:
    target = environment("web1")
    state = observation.parse(APP, "web1", text(containers=row()))

    (page,) = inspect_json(target, {"web1": Inspection(state, {}, "")}, {}, ["backend"])["hosts"]

    assert {port["expected"] for port in page["ports"]} <= {"listening", "free"}
    assert {port["found"] for port in page["ports"]} == {"free"}
