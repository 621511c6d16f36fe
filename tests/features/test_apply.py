"""The plan of a host, made from the answer of its check."""

from __future__ import annotations

from collections.abc import Mapping

from rolling_upgrade.engine.model import HostResult
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.engine.resource import Resource
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.features.apply import ApplySpec, plan_host

RESOURCES = (
    Resource("python", "the interpreter", "false", Script("install it")),
    Resource("packages", "the programs", "false", None, "install them"),
    Resource("directory /var/lib/shop", "the directory", "true", Script("mkdir it")),
    Resource("linger", "linger", "true", Script("enable it")),
    Resource("site", "the site", "false", Script("install it")),
)


def plan(missing: Mapping[str, bool], user: str = "root") -> Plan:
    notes = {"web1": ("the data stays",)}
    spec = ApplySpec("setup", HostResult.PREPARED, "Nothing to do.", {"web1": RESOURCES}, notes)
    return plan_host(user, "web1", spec, missing)


def test_plan_host_steps_are_the_missing_resources_in_their_order() -> None:
    planned = plan({"site": True, "directory /var/lib/shop": True})

    assert [step.id for step in planned.steps] == ["directory /var/lib/shop", "site"]
    assert (planned.host, planned.action, planned.notes) == ("web1", "setup", ("the data stays",))


def test_plan_host_prepared_host_has_neither_steps_nor_notes() -> None:
    assert plan({}).empty
    assert plan({}).notes == ()


def test_plan_host_only_the_step_that_the_executor_needs_becomes_root_by_itself() -> None:
    python, site = plan({"python": True, "site": True}, "admin").steps

    assert python.script.text.startswith("sudo -n sh -s <<")
    assert "sudo" not in site.script.text


def test_plan_host_resource_for_manual_work_is_no_step() -> None:
    assert [step.id for step in plan({"packages": False, "site": True}).steps] == ["site"]
