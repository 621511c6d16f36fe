"""The plan that prepares a host: what a check said in, steps and refusals out."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.engine.resource import Resource, check
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.features.setup import plan as setup
from tests.support.running import sh

ITEMS = (
    Resource("packages", "the programs", "false", None, "install them"),
    Resource("directory /var/lib/shop", "the directory", "test -d /", Script("mkdir it")),
    Resource("linger", "linger", "true", Script("enable it")),
    Resource("site", "the site", "echo noise; echo more >&2; false", Script("install it")),
)


def planned(missing: Iterable[str], user: str = "root", notes: tuple[str, ...] = ()) -> Plan:
    found = missing if isinstance(missing, dict) else dict.fromkeys(missing, True)
    return setup.plan_items("web1", ITEMS, found, action="setup", setup_user=user, notes=notes)


def test_lacking_ids_with_spaces_are_read_whole() -> None:
    assert setup.lacking("packages ok\ndirectory /var/lib/my app drift\n") == {"directory /var/lib/my app": True}


@pytest.mark.parametrize("output", ["Welcome to web1", "site perhaps", "drifting", "site drift\n\nsite ok"])
def test_lacking_answer_that_is_no_checks_is_refused(output: str) -> None:
    with pytest.raises(ValueError, match="unexpected answer"):
        setup.lacking(output)


def test_lacking_of_a_check_run_under_sh_names_exactly_what_fails() -> None:
    assert setup.lacking(sh(check(ITEMS)).stdout) == {"packages": False, "site": True}


def test_plan_setup_steps_are_the_missing_items_in_their_order() -> None:
    plan = planned(("site", "directory /var/lib/shop"))

    assert [step.id for step in plan.steps] == ["directory /var/lib/shop", "site"]
    assert (plan.host, plan.action) == ("web1", "setup")


def test_plan_setup_prepared_host_is_empty() -> None:
    assert planned(()).empty


def test_plan_setup_for_another_user_than_root_goes_through_sudo() -> None:
    plan = planned(("site",), "admin")

    assert plan.steps[0].script.text.startswith("sudo -n sh -s <<")


def test_plan_setup_item_that_cannot_be_made_is_no_step_but_a_finding() -> None:
    missing = {"packages": False, "site": True}

    assert [step.id for step in planned(missing).steps] == ["site"]
    assert [str(one) for one in setup.findings("web1", ITEMS, missing)] == ["web1: the programs: missing. install them"]


@pytest.mark.parametrize(("tool", "verdict"), [("sh", True), ("no-such-program", False)])
def test_lacking_item_that_takes_a_program_is_a_persons_where_it_is_missing(tool: str, verdict: bool) -> None:
    item = Resource(
        "packages", "the programs", "false", Script("install"), "by hand", possible=f"command -v {tool} >/dev/null"
    )

    assert setup.lacking(sh(check((item,))).stdout) == {"packages": verdict}


def test_plan_items_says_what_stays_only_where_something_goes() -> None:
    assert planned(("site",), notes=("the data stays",)).notes == ("the data stays",)
    assert planned((), notes=("the data stays",)).notes == ()
