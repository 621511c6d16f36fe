"""The plan that prepares a host: what a check said in, steps and refusals out."""

from __future__ import annotations

import pytest

from fabfile.commands.item import Item, check
from fabfile.commands.shell import Script
from fabfile.plans import setup
from tests.commands.running import sh

ITEMS = (
    Item("packages", "the programs", "false", None, "install them"),
    Item("directory /var/lib/shop", "the directory", "test -d /", Script("mkdir it")),
    Item("linger", "linger", "true", Script("enable it")),
    Item("site", "the site", "echo noise; echo more >&2; false", Script("install it")),
)


def test_drift_ids_with_spaces_are_read_whole() -> None:
    assert setup.drift("packages ok\ndirectory /var/lib/my app drift\n") == ("directory /var/lib/my app",)


@pytest.mark.parametrize("output", ["Welcome to web1", "site perhaps", "drifting", "site drift\n\nsite ok"])
def test_drift_answer_that_is_no_checks_is_refused(output: str) -> None:
    with pytest.raises(ValueError, match="unexpected answer"):
        setup.drift(output)


def test_drift_of_a_check_run_under_sh_names_exactly_what_fails() -> None:
    assert setup.drift(sh(check(ITEMS)).stdout) == ("packages", "site")


def test_plan_setup_steps_are_the_missing_items_in_their_order() -> None:
    plan = setup.plan_setup("web1", ITEMS, ("site", "directory /var/lib/shop"), setup_user="root")

    assert [step.id for step in plan.steps] == ["directory /var/lib/shop", "site"]
    assert (plan.host, plan.action) == ("web1", "setup")


def test_plan_setup_prepared_host_is_empty() -> None:
    assert setup.plan_setup("web1", ITEMS, (), setup_user="root").empty


def test_plan_setup_for_another_user_than_root_goes_through_sudo() -> None:
    plan = setup.plan_setup("web1", ITEMS, ("site",), setup_user="admin")

    assert plan.steps[0].script.text.startswith("sudo -n sh -c ")


def test_plan_setup_item_that_cannot_be_made_is_no_step_but_a_finding() -> None:
    missing = ("packages", "site")

    assert [step.id for step in setup.plan_setup("web1", ITEMS, missing, setup_user="root").steps] == ["site"]
    assert [str(one) for one in setup.findings("web1", ITEMS, missing)] == ["web1: the programs: missing. install them"]
