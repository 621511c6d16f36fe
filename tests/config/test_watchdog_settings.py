"""Env keys of the health thresholds and the watchdog: values, defaults, bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolling_upgrade.engine.model import Thresholds, WatchRules
from tests.support.project import Project

ENV_FILE = "deploy/demo.env"


def test_watchdog_without_keys_uses_the_defaults(project: Project) -> None:
    app = project.application()

    assert (app.thresholds, app.watch) == (Thresholds(), WatchRules())


def test_watchdog_keys_are_read(project: Project) -> None:
    project.env(
        {
            "MIN_FREE_PERCENT": "7.5",
            "MAX_MEMORY_PERCENT": "95",
            "MIN_CERTIFICATE_DAYS": "21",
            "MAX_CLOCK_OFFSET": "500ms",
            "MAX_BACKUP_AGE": "7d",
            "AUTO_RECOVERY_ENABLED": "no",
            "HEALTH_CHECK_INTERVAL": "5s",
            "HEALTH_CHECK_RETRIES": "2",
            "RECOVERY_LIMIT": "1",
            "RECOVERY_WINDOW": "1h",
            "FRESH_RELEASE": "0",
        }
    )

    app = project.application()

    assert app.thresholds == Thresholds(7.5, 95, 21, 0.5, 7 * 86_400)
    assert app.watch == WatchRules(False, 5, 2, 1, 3600, 0)


@pytest.mark.parametrize(
    ("key", "lowest", "highest"),
    [
        ("MIN_FREE_PERCENT", "0", "100"),
        ("MAX_MEMORY_PERCENT", "0", "100"),
        ("MIN_CERTIFICATE_DAYS", "0", "3650"),
        ("MAX_CLOCK_OFFSET", "100ms", "1d"),
        ("MAX_BACKUP_AGE", "1m", "365d"),
        ("HEALTH_CHECK_INTERVAL", "1s", "1d"),
        ("HEALTH_CHECK_RETRIES", "1", "100"),
        ("RECOVERY_LIMIT", "1", "100"),
        ("RECOVERY_WINDOW", "1m", "1d"),
        ("FRESH_RELEASE", "0", "7d"),
    ],
)
def test_watchdog_bounds_are_accepted(key: str, lowest: str, highest: str, project: Project) -> None:
    for value in (lowest, highest):
        project.env({key: value})
        assert project.application().environment == "staging"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            (key, bad)
            for key in ("MIN_FREE_PERCENT", "MAX_MEMORY_PERCENT")
            for bad in ("101", "-1", "10%", "nan", "'1 0'")
        ),
        ("MIN_CERTIFICATE_DAYS", "3651"),
        ("MIN_CERTIFICATE_DAYS", "two weeks"),
        ("MAX_CLOCK_OFFSET", "0"),
        ("MAX_CLOCK_OFFSET", "2d"),
        ("MAX_BACKUP_AGE", "59s"),
        ("MAX_BACKUP_AGE", "daily"),
        ("AUTO_RECOVERY_ENABLED", "sometimes"),
        ("HEALTH_CHECK_INTERVAL", "0.5s"),
        ("HEALTH_CHECK_INTERVAL", "inf"),
        ("RECOVERY_LIMIT", "0"),
        ("RECOVERY_LIMIT", "101"),
        ("RECOVERY_LIMIT", "1.5"),
        ("RECOVERY_WINDOW", "30s"),
        ("RECOVERY_WINDOW", "2d"),
        ("FRESH_RELEASE", "-1"),
        ("FRESH_RELEASE", "8d"),
    ],
)
def test_watchdog_value_out_of_bounds_is_one_error_at_its_key(key: str, value: str, project: Project) -> None:
    project.env({key: value})

    (issue,) = project.issues()

    assert (issue.file, issue.path) == (ENV_FILE, key)
    assert issue.expected


def test_watchdog_keys_can_be_overridden_per_host(project: Project) -> None:
    project.edit("hosts.yaml", "192.0.2.12", "192.0.2.12, env: {MIN_FREE_PERCENT: '2', RECOVERY_LIMIT: '1'}")

    first, second = (target.application for target in project.load().targets)

    assert (first.thresholds, first.watch) == (Thresholds(), WatchRules())
    assert second.thresholds == replace(Thresholds(), free_percent=2)
    assert second.watch == replace(WatchRules(), limit=1)
