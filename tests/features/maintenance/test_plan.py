"""MAINTENANCE_MODE in a deploy: when the page is enabled and disabled, and the page of an operator."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolling_upgrade.engine.model import HostState, RolloutPolicy
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.features.deploy.plan import plan_deploy
from tests.support.sample import application
from tests.support.states import as_wanted, ids, undo, upgradable, wanted

APP = application()
PAGE = "<html>"


def deploy(state: HostState, page: str | None, up: str = "") -> Plan:
    return plan_deploy(
        replace(state, facts=(("maintenance", up),)), replace(wanted(APP), page=page), RolloutPolicy(bake_seconds=1)
    )


def test_page_is_enabled_before_the_first_cutover() -> None:
    found = ids(deploy(upgradable(APP), PAGE))

    assert found.index("maintenance.on") < found.index("backend.cutover")


def test_page_on_a_host_without_a_site_waits_for_the_site() -> None:
    found = ids(deploy(HostState("web1"), PAGE))

    assert found.index("site") < found.index("maintenance.on") < found.index("backend.cutover")


def test_page_of_a_failed_deploy_is_disabled_by_the_undo() -> None:
    assert "rm -f /var/lib/shop/live/maintenance.html" in undo(deploy(upgradable(APP), PAGE), "maintenance.on")


def test_page_of_the_setting_is_disabled_after_verification() -> None:
    found = ids(deploy(upgradable(APP), "", up="setting"))

    assert found[-3:] == ["verify", "maintenance.off", "drain"]


@pytest.mark.parametrize(
    ("page", "up", "empty"),
    [
        (PAGE, "setting", True),
        (PAGE, "hand", True),
        (PAGE, "", False),
        ("", "", True),
        ("", "hand", True),
        ("", "setting", False),
        (None, "setting", True),
        (None, "", True),
    ],
)
def test_page_change_alone_makes_the_plan_not_empty(page: str | None, up: str, empty: bool) -> None:
    assert deploy(as_wanted(APP), page, up).empty is empty


@pytest.mark.parametrize("page", ["", None, PAGE])
def test_page_of_an_operator_stays_through_a_deploy(page: str | None) -> None:
    found = ids(deploy(upgradable(APP), page, up="hand"))

    assert "backend.cutover" in found
    assert not {"maintenance.on", "maintenance.off"} & {*found}
