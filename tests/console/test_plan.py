"""Plans as lines."""

from __future__ import annotations

from dataclasses import fields, replace
from json import dumps as to_json

import pytest

from rolling_upgrade.console.plan import count_line, plan_lines
from rolling_upgrade.console.reporter import plan_json
from rolling_upgrade.console.text import indent
from rolling_upgrade.engine.masking import MASK
from rolling_upgrade.engine.model import Color
from rolling_upgrade.engine.plan import Change, Plan, ServicePlan, Step
from rolling_upgrade.engine.shell import Script, script
from tests.support import states
from tests.support.builders import NEW, OLD, kept, plan, replaced
from tests.support.sample import application


def shown(*plans: Plan, scripts: bool = False, batches: tuple[tuple[str, ...], ...] = ()) -> str:
    return "\n".join(plan_lines(plans, scripts=scripts, batches=batches))


def test_plan_lines_replaced_service_shows_tags_digests_colors_and_reasons() -> None:
    text = shown(plan())

    assert "backend  v1.0.0 (ab12ab12ab12) blue → v2.0.0 (cd34cd34cd34) green" in text
    assert "because the image differs" in text
    assert "environment keys: +NEW_KEY" in text
    assert "the Nginx text changes" in text


def test_plan_lines_first_service_comes_from_nothing() -> None:
    first = ServicePlan("backend", Change.FIRST, NEW, Color.BLUE)

    assert "backend  nothing → v2.0.0 (cd34cd34cd34) blue" in shown(plan("web1", first))


def test_plan_lines_unchanged_service_has_nothing_to_do() -> None:
    text = shown(plan("web1", kept()))

    assert "backend  v1.0.0 (ab12ab12ab12) blue, unchanged" in text
    assert "nothing to do" in text


def test_plan_lines_steps_are_listed_by_stage() -> None:
    lines = [line.split() for line in plan_lines([plan()], scripts=False)]

    assert ["lock", "Take", "the", "lock"] in lines
    assert ["prepare", "Back", "up", "the", "database"] in lines
    assert ["run", "Start", "backend", "green"] in lines
    assert ["finish", "Record", "the", "release"] in lines


def test_plan_lines_without_scripts_shows_no_command() -> None:
    assert "podman" not in shown(plan())


def test_plan_lines_with_scripts_shows_every_command_and_undo() -> None:
    text = shown(plan(), scripts=True)

    for command in ("mkdir lock", "sqlite3 x", "podman start x", "podman stop x", "printf done"):
        assert f"    {command}\n" in text
    assert "# backend.start: Start backend green (run, at most 1m 00s)" in text
    assert "# only to undo backend.start: Stop backend green" in text


def every_script(found: Plan) -> dict[str, Script]:
    """Return the scripts and undo scripts in every field of a plan that holds steps."""
    values = [value for field in fields(found) if isinstance(value := getattr(found, field.name), tuple)]
    steps = [step for value in values for step in value if isinstance(step, Step)]
    undone = {f"undo of {step.id}": step.undo for step in steps if step.undo is not None}
    return {step.id: step.script for step in steps} | undone


@pytest.mark.parametrize("json", [False, True])
def test_plan_with_scripts_is_complete(json: bool) -> None:
    """Both outputs show the lock, the preparation, the steps, their undo, the end, and the end after an undo."""
    app = application()
    made = states.plan(replace(states.upgradable(app), live_site_hash="another"), app)
    scripts = every_script(made)
    assert {"lock", "backup", "pull", "site", "undo of site", "backend.start", "record", "abandon"} <= scripts.keys()

    output = to_json(plan_json(made, scripts=True)) if json else shown(made, scripts=True)

    for name, body in scripts.items():
        expected = to_json(body.masked)[1:-1] if json else "\n".join(indent(body.masked, "    "))
        assert expected in output, name


def test_plan_lines_with_scripts_shows_the_steps_after_an_undo() -> None:
    text = shown(plan(), scripts=True)

    assert "# abandon: Record the failure (after an undo, at most 10.0s)" in text
    assert "printf failed" in text
    assert "Record the failure" not in shown(plan())


def grouped() -> Plan:
    steps = tuple(
        Step(f"{name}.start", f"{name}: start", script("podman start x"), 10, group="a") for name in ("b", "f")
    )
    return Plan(
        "web1", "deploy", "r1", (replaced(),), steps=(*steps, Step("b.cutover", "b: cut over", script(":"), 10))
    )


def test_plan_lines_steps_of_a_group_are_listed_below_a_heading() -> None:
    lines = shown(grouped()).splitlines()
    at = next(number for number, line in enumerate(lines) if line.endswith("at the same time:"))

    assert [line.strip() for line in lines[at : at + 4]] == [
        "run  at the same time:",
        "b: start",
        "f: start",
        "b: cut over",
    ]
    indents = [len(line) - len(line.lstrip()) for line in lines[at + 1 : at + 4]]
    assert indents[0] == indents[1] == indents[2] + 2


def test_plan_lines_with_scripts_name_the_steps_that_run_at_the_same_time() -> None:
    text = shown(grouped(), scripts=True)

    assert "# b.start: b: start (run, at the same time as f.start, at most 10.0s)" in text
    assert "# b.cutover: b: cut over (run, at most 10.0s)" in text


def test_plan_lines_with_scripts_masks_their_secrets() -> None:
    text = shown(plan(secret="hunter22"), scripts=True)

    assert f"podman run --env {MASK}" in text
    assert "hunter22" not in text


def test_plan_lines_hosts_with_the_same_plan_share_a_block() -> None:
    text = shown(plan("web1"), plan("web2"), plan("web3", kept()))

    assert "\nweb1, web2\n" in text
    assert "\nweb3\n" in text


def test_plan_lines_batches_are_numbered() -> None:
    text = shown(plan("web1"), plan("web2"), plan("web3"), batches=(("web1",), ("web2", "web3")))

    assert "Order\n  1. web1\n  2. web2, web3\n" in text


def test_plan_lines_one_batch_is_not_mentioned() -> None:
    assert "Order" not in shown(plan("web1"), plan("web2"), batches=(("web1", "web2"),))


def test_plan_lines_last_line_is_the_count() -> None:
    assert plan_lines([plan("web1")], scripts=False)[-1] == count_line([plan("web1")])


def test_count_line_of_equal_plans_counts_one_host() -> None:
    plans = [plan(host, replaced("backend"), replaced("frontend")) for host in ("web1", "web2")]

    assert count_line(plans) == "2 hosts: 2 services to upgrade, 0 unchanged on each host"


def test_count_line_of_different_plans_counts_all_hosts() -> None:
    plans = [plan("web1", replaced(), kept("frontend")), plan("web2", kept(), kept("frontend"))]

    assert count_line(plans) == "2 hosts: 1 service to upgrade, 3 unchanged in all"


def test_count_line_of_a_rollback_says_roll_back() -> None:
    back = Plan("web1", "rollback", "r1", (replaced(),), steps=plan().steps)

    assert count_line([back]) == "1 host: 1 service to roll back, 0 unchanged"


def test_count_line_first_start_is_not_an_upgrade() -> None:
    first = ServicePlan("backend", Change.FIRST, OLD, Color.BLUE)

    assert (
        count_line([plan("web1", first)]) == "1 host: 0 services to upgrade, 1 to start for the first time, 0 unchanged"
    )


def test_count_line_plans_without_services_counts_hosts() -> None:
    step = Step("user", "Make the user", script("useradd x"), 10)
    plans = [Plan("web1", "setup", "", steps=(step,)), Plan("web2", "setup", "")]

    assert count_line(plans) == "2 hosts: 1 to change, 1 unchanged"


def test_plan_lines_without_release_has_no_trailing_blank() -> None:
    assert plan_lines([Plan("web1", "setup", "")], scripts=False)[0] == "Plan: setup, 1 host"
