"""Builds and suites in words: what is told before anything is done, and after it."""

from __future__ import annotations

import pytest

from rolling_upgrade.engine.model import Suite, SuiteKind
from rolling_upgrade.features.build.view import suite_plan_lines

SUITES = (Suite(SuiteKind.UNIT, ("make", "test"), "/app"), Suite(SuiteKind.LOAD, ("k6", "run", "a b"), "/app"))


@pytest.mark.parametrize(
    ("production", "load"),
    [(False, "load: k6 run 'a b' in /app"), (True, "load: would be skipped: production is not put under load")],
)
def test_plan_of_suites_says_what_is_skipped_for_production(production: bool, load: str) -> None:
    assert suite_plan_lines(SUITES, production=production) == ["unit: make test in /app", load]
