"""The plan of a host, made from the answer of its check."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from rolling_upgrade.engine.model import HostResult
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.engine.resource import Resource, check
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.features.setup.apply import ApplySpec, findings, parse_check, plan_host
from tests.support.shell import sh

RESOURCES = (
    Resource("packages", "the programs", "false", None, "install them"),
    Resource("directory /var/lib/shop", "the directory", "test -d /", Script("mkdir it")),
    Resource("linger", "linger", "true", Script("enable it")),
    Resource("site", "the site", "echo noise; echo more >&2; false", Script("install it")),
)


def plan(missing: Mapping[str, bool], user: str = "root") -> Plan:
    notes = {"web1": ("the data stays",)}
    spec = ApplySpec("setup", HostResult.PREPARED, "Nothing to do.", {"web1": RESOURCES}, notes)
    return plan_host(user, "web1", spec, missing)


def test_parse_check_id_with_spaces_is_read_completely() -> None:
    assert parse_check("packages ok\ndirectory /var/lib/my app drift\n") == {"directory /var/lib/my app": True}


@pytest.mark.parametrize("output", ["Welcome to web1", "site perhaps", "drifting", "site drift\n\nsite ok"])
def test_parse_check_other_output_is_refused(output: str) -> None:
    with pytest.raises(ValueError, match="unexpected answer"):
        parse_check(output)


def test_parse_check_output_of_sh_names_exactly_the_missing_resources() -> None:
    assert parse_check(sh(check(RESOURCES)).stdout) == {"packages": False, "site": True}


@pytest.mark.parametrize(("tool", "applicable"), [("sh", True), ("no-such-program", False)])
def test_parse_check_resource_without_its_program_needs_manual_work(tool: str, applicable: bool) -> None:
    resource = Resource(
        "packages", "the programs", "false", Script("install"), "by hand", possible=f"command -v {tool} >/dev/null"
    )

    assert parse_check(sh(check((resource,))).stdout) == {"packages": applicable}


def test_plan_host_steps_are_the_missing_resources_in_their_order() -> None:
    planned = plan({"site": True, "directory /var/lib/shop": True})

    assert [step.id for step in planned.steps] == ["directory /var/lib/shop", "site"]
    assert (planned.host, planned.action, planned.notes) == ("web1", "setup", ("the data stays",))


def test_plan_host_prepared_host_has_neither_steps_nor_notes() -> None:
    assert plan({}).empty
    assert plan({}).notes == ()


def test_plan_host_setup_user_other_than_root_uses_sudo() -> None:
    assert plan({"site": True}, "admin").steps[0].script.text.startswith("sudo -n sh -s <<")


def test_plan_host_resource_for_manual_work_is_a_finding_and_no_step() -> None:
    missing = {"packages": False, "site": True}

    assert [step.id for step in plan(missing).steps] == ["site"]
    assert [str(finding) for finding in findings("web1", RESOURCES, missing)] == [
        "web1: the programs: missing. install them"
    ]
